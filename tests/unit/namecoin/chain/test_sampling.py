"""The draw of blocks to check: its bound, by mathematics and by trying."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.namecoin.chain.sampling import (
    FULL_TAIL,
    SECURITY_BITS,
    draw,
    draws_needed,
    hit_probability,
)

SECRET = b"s" * 32
NINE_MONTHS = 38_600


def seed(number: int) -> bytes:
    return number.to_bytes(32, "little")


def hit_by_one_draw(works: Sequence[int], tail: int, forged: Sequence[bool]) -> float:
    """The exact probability, from the density, that one draw is a forged block."""
    remaining, hit = 0, 0.0
    newest = sum(works[-tail:])
    for work, is_forged in zip(reversed(works), reversed(forged), strict=True):
        if remaining >= newest and is_forged:
            hit += math.log((remaining + work) / remaining)
        remaining += work
    return hit / math.log(remaining / newest)


def oldest_half(works: Sequence[int], depth: int) -> list[bool]:
    """A fork of `depth` blocks of which the oldest were not worked for, just over half."""
    forged, wanted = [False] * len(works), sum(works[-depth:])
    missing = 0
    for at in range(len(works) - depth, len(works)):
        if 2 * missing > wanted:
            break
        forged[at] = True
        missing += works[at]
    return forged


def test_nine_months_take_some_210_draws() -> None:
    draws = draws_needed(NINE_MONTHS, FULL_TAIL)
    assert 205 <= draws <= 215
    assert 150 <= draws_needed(NINE_MONTHS // 3, FULL_TAIL) <= 175
    hit = hit_probability(NINE_MONTHS, FULL_TAIL)
    assert (1 - hit) ** draws <= 2.0**-SECURITY_BITS < (1 - hit) ** (draws - 1)


def test_where_no_fork_can_be_half_forged_nothing_is_drawn() -> None:
    assert hit_probability(200, 100) == 1.0
    assert draw([1] * (2 * FULL_TAIL), SECRET, seed(1)) == []
    assert draw([1] * FULL_TAIL, SECRET, seed(1)) == []
    assert draw([], SECRET, seed(1)) == []


@given(st.data())
def test_no_fork_is_hit_more_seldom_than_the_bound_says(data: st.DataObject) -> None:
    """Whatever the difficulties, the depth, and which blocks of it are forged."""
    works = data.draw(st.lists(st.integers(1, 1 << 80), min_size=4, max_size=60))
    tail = data.draw(st.integers(1, len(works) - 1))
    depth = data.draw(st.integers(tail + 1, len(works)))
    forged = [
        at >= len(works) - depth and at < len(works) - tail and data.draw(st.booleans())
        for at in range(len(works))
    ]
    missing = sum(work for work, is_forged in zip(works, forged, strict=True) if is_forged)
    if 2 * missing > sum(works[-depth:]):
        bound = hit_probability(sum(works), sum(works[-tail:]))
        assert hit_by_one_draw(works, tail, forged) >= bound * (1 - 1e-9)


@given(st.lists(st.integers(1, 1 << 90), min_size=1, max_size=400), st.integers(0, 1 << 64))
def test_what_is_drawn_is_in_the_chain_and_not_in_its_tail(works: list[int], number: int) -> None:
    drawn = draw(works, SECRET, seed(number), tail=20)
    assert drawn == sorted(set(drawn))
    assert all(0 <= at < len(works) - 20 for at in drawn)
    assert drawn == draw(works, SECRET, seed(number), tail=20)


def test_the_draw_is_anothers_with_another_secret_or_tip() -> None:
    works = [1] * 5000
    drawn = draw(works, SECRET, seed(1))
    assert drawn != draw(works, b"t" * 32, seed(1))
    assert drawn != draw(works, SECRET, seed(2))


def test_draws_come_as_densely_as_the_density_says() -> None:
    """Near the tip most: a fork of any depth, from twice the tail on, is hit as often."""
    works = [1] * 2000
    counts = [0] * len(works)
    rounds = 400
    for number in range(rounds):
        for at in draw(works, SECRET, seed(number), tail=20, bits=2):
            counts[at] += 1
    draws = draws_needed(2000, 20, 2)
    for start, end in ((0, 1000), (1000, 1500), (1500, 1750), (1750, 1900)):
        mass = math.log((2000 - start) / (2000 - end)) / math.log(2000 / 20)
        expected = rounds * draws * mass
        assert abs(sum(counts[start:end]) - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("depth", [45, 90, 400, 1000])
@pytest.mark.parametrize("difficulty", ["even", "rising", "falling"])
def test_the_share_of_forgeries_that_pass_agrees_with_the_bound(
    depth: int, difficulty: str
) -> None:
    """With weak parameters, where some do."""
    tail, bits, tries = 20, 3, 1500
    slope = {"even": 0, "rising": 1, "falling": -1}[difficulty]
    works = [1000 + slope * at // 2 for at in range(1000)]
    forged = oldest_half(works, depth)
    draws = draws_needed(sum(works), sum(works[-tail:]), bits)
    passed = sum(
        not any(forged[at] for at in draw(works, SECRET, seed(number), tail, bits))
        for number in range(tries)
    )
    expected = (1 - hit_by_one_draw(works, tail, forged)) ** draws
    assert expected <= 2.0**-bits
    assert abs(passed - tries * expected) < 5 * math.sqrt(tries * expected) + 1


def test_at_the_stated_parameters_none_passes() -> None:
    """Beside the bound: forgers who do half the work, at random or to the eye's best."""
    rng = random.Random(1)
    works = [1] * 4000
    for number in range(150):
        depth = rng.choice([300, 1000, 4000])
        forged = oldest_half(works, depth)
        if number % 2:
            body = forged[-depth:-FULL_TAIL]
            rng.shuffle(body)
            forged[-depth:-FULL_TAIL] = body
        assert any(forged[at] for at in draw(works, SECRET, seed(number)))
