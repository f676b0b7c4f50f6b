"""What was sent last arrives, and a connection that is never read is given up."""

from __future__ import annotations

import asyncio
import socket

import pytest

from isoproxy.net.lingering_close import lingering_close
from tests.unit.bitcoin.ends import narrow_tcp_pair, pair, send, speak_then_read


async def test_one_that_speaks_all_the_time_gets_all_it_was_sent() -> None:
    other, sock = narrow_tcp_pair()
    await send(sock, bytes(400_000))
    closing = asyncio.create_task(lingering_close(sock))
    assert await speak_then_read(other) == bytes(400_000)
    await closing
    assert sock.fileno() == -1


async def test_one_that_never_reads_is_given_up() -> None:
    other, sock = narrow_tcp_pair()
    with other:
        await send(sock, bytes(400_000))
        await lingering_close(sock, seconds=0.3)
        assert sock.fileno() == -1


@pytest.mark.parametrize("read", [True, False])
async def test_several_are_closed_at_once(read: bool) -> None:
    (one, near), (two, far) = pair(), narrow_tcp_pair()
    with one, two:
        await send(near, b"last")
        if read:
            two.shutdown(socket.SHUT_WR)
        await lingering_close(near, far)
        assert one.recv(10) == b"last"
        assert (near.fileno(), far.fileno()) == (-1, -1)
