"""How much is done in one turn of the loop, without a clock."""

from __future__ import annotations

import asyncio
import contextlib


async def most_per_turn(counts: list[int]) -> int:
    """The largest growth of the count `counts[0]` in one turn of the loop, until cancelled."""
    most, before = 0, counts[0]
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0)
            most, before = max(most, counts[0] - before), counts[0]
    return max(most, counts[0] - before)
