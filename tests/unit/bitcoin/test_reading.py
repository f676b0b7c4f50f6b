"""Reading a connection's first bytes: in time, and none lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from isoproxy.bitcoin.reading import read_until
from tests.unit.bitcoin.ends import pair, send


def five(first: bytes) -> str | None:
    return "enough" if len(first) >= 5 else None


async def test_it_ends_with_a_verdict() -> None:
    near, far = pair()
    with near, far:
        await send(far, b"12345678")
        found = await read_until(near, five, silence=1, handshake_timeout=1)
        assert found == (b"12345678", "enough")
        found = await read_until(near, five, silence=1, handshake_timeout=1, first=b"12345")
        assert found == (b"12345", "enough")


@pytest.mark.virtual_clock
async def test_silence_is_not_waited_out_for_long() -> None:
    near, far = pair()
    with near, far:
        assert await read_until(near, five, silence=3, handshake_timeout=60) == (b"", None)
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=1)


@pytest.mark.virtual_clock
async def test_one_that_stops_on_the_way_is_given_up() -> None:
    near, far = pair()
    with near, far:
        await asyncio.get_running_loop().sock_sendall(far, b"123")
        with pytest.raises(TimeoutError):
            await read_until(near, five, silence=3, handshake_timeout=60)
        assert asyncio.get_running_loop().time() >= 60


async def test_one_that_closes_is_told_apart_by_its_bytes() -> None:
    near, far = pair()
    with near, far:
        await send(far, b"123")
        far.close()
        assert await read_until(near, five, silence=3, handshake_timeout=60) == (b"123", None)


async def test_a_silence_that_ends_as_it_is_noticed_costs_no_bytes() -> None:
    """Bytes and the end of the silence come in one turn of a loop that was held up."""
    near, far = pair()
    with near, far:
        reading = asyncio.create_task(read_until(near, five, silence=0.05, handshake_timeout=1))
        await asyncio.sleep(0.01)
        far.send(b"12345")
        time.sleep(0.1)  # noqa: ASYNC251  that is the point
        assert await reading == (b"12345", "enough")
