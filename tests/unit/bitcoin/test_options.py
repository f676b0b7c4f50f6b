"""Options: their limits, and what they do to a connection."""

from __future__ import annotations

import math

import pytest

from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.options import Deadlines, DecoyPolicy, TransportOptions
from isoproxy.bitcoin.v1 import VERSION


def test_by_default_garbage_is_drawn_below_4095_and_nothing_else_is_done() -> None:
    sizes = {
        len(TransportOptions().transport(MAINNET, initiator=True).opening()) - 64
        for _ in range(200)
    }
    assert len(sizes) > 100
    assert 0 <= min(sizes) <= max(sizes) <= 4094
    assert TransportOptions().decoys.pause() == math.inf


def test_garbage_and_prefix() -> None:
    options = TransportOptions(garbage=(7, 7), prefix=b"GET / ")
    opening = options.transport(MAINNET, initiator=True).opening()
    assert len(opening) == 71
    assert opening.startswith(b"GET / ")


def test_what_may_speak_v1_gets_little_garbage_and_little_time() -> None:
    garbage = [(0, 4094), (7, 7), (4000, 4000), (100, 200)]
    short = [TransportOptions(garbage=each).with_short_garbage().garbage for each in garbage]
    assert short == [(0, 175), (7, 7), (175, 175), (100, 175)]
    assert Deadlines().with_short_silence().first_byte == 8
    assert Deadlines(first_byte=3).with_short_silence().first_byte == 3


@pytest.mark.parametrize("garbage", [(-1, 5), (5, 4), (0, 4095)])
def test_garbage_limits(garbage: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="4094"):
        TransportOptions(garbage=garbage)


def test_prefix_limits() -> None:
    with pytest.raises(ValueError, match="32"):
        TransportOptions(prefix=bytes(33))
    with pytest.raises(ValueError, match="v1"):
        TransportOptions(prefix=MAINNET.magic + VERSION)


@pytest.mark.parametrize("logarithmic", [True, False])
def test_decoy_sizes_lie_within_their_limits(logarithmic: bool) -> None:
    policy = DecoyPolicy(60, 3, 200, logarithmic=logarithmic)
    sizes = [policy.size() for _ in range(3000)]
    assert 3 <= min(sizes) <= max(sizes) <= 200
    small = sum(size < 50 for size in sizes)
    assert (small > 1500) is logarithmic
    assert DecoyPolicy(60, 5, 5, logarithmic=logarithmic).size() == 5


def test_decoy_pauses_average_the_rate() -> None:
    policy = DecoyPolicy(per_minute=120)
    assert 0.4 < sum(policy.pause() for _ in range(3000)) / 3000 < 0.6


@pytest.mark.parametrize(
    "values",
    [
        {"smallest": 5, "largest": 4},
        {"largest": 70_000},
        {"per_minute": -1.0},
        {"per_minute": 1e9},
        {"before_version": 17},
    ],
)
def test_decoy_limits(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="decoy"):
        DecoyPolicy(**values)  # type: ignore[arg-type]  # values of several fields at once


def test_decoys_before_the_version_packet() -> None:
    options = TransportOptions((0, 0), decoys=DecoyPolicy(before_version=3, smallest=9, largest=9))
    one = options.transport(MAINNET, initiator=True)
    two = TransportOptions().transport(MAINNET, initiator=False)
    reply, _ = one.receive(two.receive(one.opening())[0])
    assert len(reply) == 16 + 3 * 29 + 20
    two.receive(reply)
    assert two.decoys_received == 3
