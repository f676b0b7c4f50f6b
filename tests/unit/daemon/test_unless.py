"""Work is done, or called off by an order to stop."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.daemon.unless import done_unless


async def test_work_is_done() -> None:
    assert await done_unless(asyncio.Event(), asyncio.sleep(0))


async def test_what_it_raises_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("marked")

    with pytest.raises(ValueError, match="marked"):
        await done_unless(asyncio.Event(), fail())


async def test_an_order_to_stop_calls_it_off() -> None:
    stop, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asyncio.get_running_loop().call_soon(stop.set)
    assert not await done_unless(stop, wait())
    assert ended.is_set()
