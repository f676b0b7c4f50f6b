"""Progress: when there is nothing left to fetch."""

from __future__ import annotations

from dataclasses import replace

from isoproxy.namecoin.electrum.progress import Progress

DONE = Progress(base=100, tip=500, target=500, wanted_base=100, fetched=500, unproven=7)


def test_it_is_complete_when_both_ends_are_reached_proven_in_full_or_not() -> None:
    assert DONE.is_complete
    assert not replace(DONE, target=501).is_complete
    assert not replace(DONE, base=101).is_complete
