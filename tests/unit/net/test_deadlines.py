"""Deadlines are met late by one tick at most, and never early."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.net.deadlines import Deadlines


class Alarm:
    def __init__(self) -> None:
        self.rang = 0

    def on_deadline(self) -> None:
        self.rang += 1


@pytest.mark.virtual_clock
async def test_deadlines_are_met_late_by_one_tick_at_most_and_never_early() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    soon, later, never = Alarm(), Alarm(), Alarm()
    deadlines.set(soon, 2.5)
    deadlines.set(later, 100)
    deadlines.set(never, 5)
    deadlines.clear(never)
    deadlines.clear(never)
    await asyncio.sleep(2.4)
    assert soon.rang == 0
    await asyncio.sleep(1.2)
    assert soon.rang == 1
    assert len(deadlines) == 1
    deadlines.set(later, 1)
    await asyncio.sleep(2.1)
    assert (later.rang, never.rang, len(deadlines)) == (1, 0, 0)
    deadlines.set(soon, 1)
    deadlines.close()
    await asyncio.sleep(5)
    assert soon.rang == 1
