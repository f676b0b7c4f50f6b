"""Shares of look-ups: who begins, who waits, who is refused."""

from __future__ import annotations

import pytest

from stemns_plugin import lookup_shares
from stemns_plugin.lookup_shares import Admission, LookupShares, UnderWay

ONE, TWO = UnderWay(False, b"192.0.2.1"), UnderWay(True, b"192.0.2.2")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MAX_LOOKUPS": 5, "MAX_LOOKUPS_OF_ONE": 2, "MAX_WAITING_OF_ONE": 3, "MAX_WAITING": 4,
    }.items():  # fmt: skip
        monkeypatch.setattr(lookup_shares, name, value)


def admitted(shares: LookupShares, lookup: UnderWay, *streams: int) -> list[Admission]:
    return [shares.admit(stream, lookup) for stream in streams]


def test_a_client_waits_for_itself_alone() -> None:
    shares = LookupShares()
    begins, waits = Admission.BEGINS, Admission.WAITS
    assert admitted(shares, ONE, 1, 2, 3, 4, 3) == [begins, begins, waits, waits, waits]
    assert admitted(shares, TWO, 11) == [begins]
    assert shares.whose_turn_it_is() == []
    assert shares.end(11) == TWO
    assert shares.whose_turn_it_is() == []
    assert shares.end(1) == ONE
    assert shares.whose_turn_it_is() == [3]
    assert admitted(shares, ONE, 3) == [begins]
    assert (len(shares), 3 in shares, 4 in shares) == (2, True, False)


def test_waiting_is_bounded() -> None:
    shares = LookupShares()
    assert admitted(shares, ONE, *range(6))[-1] is Admission.REFUSED
    assert admitted(shares, TWO, 11, 12, 13, 14)[-2:] == [Admission.WAITS, Admission.REFUSED]
    shares.end(0)
    shares.end(1)
    assert shares.whose_turn_it_is() == [2, 3]
    assert admitted(shares, TWO, 14) == [Admission.WAITS]


def test_all_look_ups_are_bounded() -> None:
    shares = LookupShares()
    for number in range(5):
        shares.admit(number, UnderWay(False, b"%d" % number))
    assert admitted(shares, ONE, 9) == [Admission.REFUSED]


def test_what_is_not_under_way_does_not_end() -> None:
    assert LookupShares().end(1) is None
