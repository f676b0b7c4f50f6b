"""Counts by identity, which end with it."""

from __future__ import annotations

import pytest

from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve import lookup_counts
from isoproxy.namecoin.resolve.lookup_counts import LookupCounts
from tests.unit.namecoin.kit import key_of


def test_an_identity_that_has_ended_is_forgotten() -> None:
    isolator = Isolator()
    counts = LookupCounts(isolator)
    alice, bob = (key_of(isolator, who) for who in ("alice", "bob"))
    for key in (alice, alice, bob):
        counts.add(key)
    assert counts.by_label() == {alice.label: 2, bob.label: 1}
    isolator.renew(alice.label)
    assert counts.by_label() == {bob.label: 1}
    isolator.new_epoch()
    assert counts.by_label() == {}


def test_a_closed_one_follows_no_more() -> None:
    isolator = Isolator()
    counts = LookupCounts(isolator)
    counts.add(key_of(isolator, "alice"))
    counts.close()
    isolator.new_epoch()
    assert counts.by_label()


def test_so_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_counts, "MAX_IDENTITIES", 2)
    isolator = Isolator()
    counts = LookupCounts(isolator)
    for who in ("a", "b", "c", "a"):
        counts.add(key_of(isolator, who))
    assert sorted(counts.by_label().values()) == [1, 2]
