"""A client that Tor has left has its time, as long as it takes what it was sent."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.front.half_close import LOOK_AGAIN_S, TAIL_S, HalfCloseTimeout
from isoproxy.net.deadlines import Deadlines


class Left:
    """A relay that Tor has left."""

    def __init__(self, *, broken: bool = False, held: int = 0) -> None:
        self.broken = broken
        self.bytes_up = 0
        self.held = held
        self.finished = 0

    def unread(self) -> int:
        return self.held

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.virtual_clock
async def test_one_that_neither_speaks_nor_reads_is_ended_in_its_time() -> None:
    deadlines, relay = Deadlines(asyncio.get_running_loop()), Left()
    HalfCloseTimeout(deadlines, relay)
    await asyncio.sleep(TAIL_S - 1)
    assert relay.finished == 0
    await asyncio.sleep(3)
    assert (relay.finished, len(deadlines)) == (1, 0)


@pytest.mark.virtual_clock
async def test_one_that_is_still_heard_or_still_reads_is_waited_for() -> None:
    deadlines, relay = Deadlines(asyncio.get_running_loop()), Left(held=5)
    HalfCloseTimeout(deadlines, relay)
    await asyncio.sleep(3 * TAIL_S)
    relay.held, relay.bytes_up = 0, 7
    await asyncio.sleep(TAIL_S + 2)
    assert relay.finished == 0
    await asyncio.sleep(TAIL_S + 2)
    assert relay.finished == 1


@pytest.mark.virtual_clock
async def test_a_break_is_passed_on_as_soon_as_all_is_read() -> None:
    deadlines, relay = Deadlines(asyncio.get_running_loop()), Left(broken=True, held=5)
    HalfCloseTimeout(deadlines, relay)
    await asyncio.sleep(10 * LOOK_AGAIN_S)
    assert relay.finished == 0
    relay.held = 0
    await asyncio.sleep(3 * LOOK_AGAIN_S)
    assert relay.finished == 1


@pytest.mark.virtual_clock
async def test_a_relay_that_has_ended_is_not_watched() -> None:
    deadlines, relay = Deadlines(asyncio.get_running_loop()), Left()
    HalfCloseTimeout(deadlines, relay).close()
    await asyncio.sleep(2 * TAIL_S)
    assert relay.finished == 0
