"""Turns: which server is followed first, and for how long."""

from __future__ import annotations

from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.turns import Turns

FIRST_S = 30.0


def claims(**heights: int) -> dict[str, TipClaim]:
    """By server; what has the same height is the same block."""
    return {label: TipClaim(at, at.to_bytes(80, "big")) for label, at in heights.items()}


def test_what_several_show_comes_before_what_is_higher() -> None:
    said = claims(bad=900, one=500, lagging=499, two=500)
    assert list(Turns(FIRST_S).in_order(said)) == ["one", "two", "bad", "lagging"]


def test_who_has_wasted_a_turn_comes_last_and_holds_nothing_up_until_one_brings_something() -> None:
    turns, said = Turns(FIRST_S), claims(high=900, low=500)
    assert not turns.has_wasted("high")
    turns.ended("high", brought=False)
    assert list(turns.in_order(said)) == ["low", "high"]
    assert turns.has_wasted("high")
    turns.ended("low", brought=False)
    turns.ended("low", brought=False)
    assert list(turns.in_order(said)) == ["high", "low"]
    turns.ended("high", brought=True)
    assert not turns.has_wasted("high")


def test_each_turn_after_a_wasted_one_is_twice_as_long_up_to_a_bound() -> None:
    turns, lengths = Turns(FIRST_S), []
    for _ in range(6):
        lengths.append(turns.length("slow"))
        turns.ended("slow", brought=False)
    assert lengths == [30.0, 60.0, 120.0, 240.0, 240.0, 240.0]
    assert turns.length("another") == FIRST_S
