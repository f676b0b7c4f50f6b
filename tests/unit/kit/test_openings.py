"""The judge of what left in plaintext sees it, wherever it stands, and nothing else."""

from __future__ import annotations

import os
import random

import pytest

from tests.kit.openings import MAGICS, Kind, Opening, Received, faults, missing, opening

LISTED = 8333
ELSEWHERE = 8080


def openings(seed: int = 1) -> list[Opening]:
    chance = random.Random(seed)
    return [opening(chance, ("127.0.0.1", LISTED)) for _ in range(400)]


def judged(said: bytes, port: int = LISTED, *, unknown_too: bool = True) -> list[str]:
    return faults([Received(port, said)], (), listed=[LISTED], unknown_too=unknown_too)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("port", [LISTED, ELSEWHERE])
@pytest.mark.parametrize("unknown_too", [True, False])
def test_what_must_not_leave_is_a_fault_and_what_may_is_none(
    kind: Kind, port: int, unknown_too: bool
) -> None:
    told = openings()
    some = [one for one in told if one.kind is kind and one.mark in one.whole]
    assert len(some) > 20
    received = [Received(port, one.whole) for one in some]
    found = faults(received, told, listed=[LISTED], unknown_too=unknown_too)
    closed = unknown_too and port == LISTED
    forbidden = kind in (Kind.KNOWN, Kind.BROKEN) or (kind is Kind.UNKNOWN and closed)
    assert len(found) == (len(some) if forbidden else 0)


@pytest.mark.parametrize("magic", MAGICS)
def test_a_message_of_a_known_network_is_seen_wherever_it_stands(magic: bytes) -> None:
    header = magic + b"getaddr".ljust(12, b"\0") + bytes(8)
    assert judged(header, ELSEWHERE, unknown_too=False)
    assert judged(os.urandom(64) + header, ELSEWHERE, unknown_too=False)
    assert judged(magic + b"\xff", ELSEWHERE)
    assert not judged(b"\x01" + magic + b"\xff", ELSEWHERE)


@pytest.mark.parametrize("size", [5, 8, 15, 24])
def test_a_part_of_a_header_counts_on_ports_of_bitcoin(size: int) -> None:
    header = (b"\x01\x02\x03\x04" + b"version".ljust(12, b"\0") + bytes(8))[:size]
    assert judged(header)
    assert not judged(header, ELSEWHERE)
    assert not judged(header, unknown_too=False)


def test_a_v2_key_and_other_protocols_are_no_headers() -> None:
    assert not any(judged(os.urandom(64)) for _ in range(2000))
    assert not judged(b"\x01\x02\x03\x04")
    assert not judged(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_what_came_in_part_is_missing() -> None:
    one, other = openings()[:2]
    assert missing([Received(LISTED, one.whole)], [one]) == []
    assert missing([Received(LISTED, one.whole[:-1])], [one]) == [one]
    assert missing([Received(LISTED, one.whole)], [one, other]) == [other]


def test_every_piece_of_a_known_message_is_cut_somewhere() -> None:
    cuts = {len(one.pieces[0][1]) for one in openings() if one.kind is Kind.KNOWN}
    assert {1, 2, 3, 4} <= cuts
