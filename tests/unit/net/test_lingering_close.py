"""Last bytes arrive, whoever sends what meanwhile, and every socket is closed in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from isoproxy.net import lingering_close as module
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.lingering_close import LingeringClose, lingering_close
from isoproxy.net.reactor import Handler, Reactor
from tests.kit.stream_conformance import (
    CLOSE_CHECKS,
    CloseCheck,
    MakeClose,
    name_of,
    tcp_pair,
    unix_pair,
)
from tests.unit.bitcoin.ends import narrow_tcp_pair, send, speak_then_read

Pair = Callable[[], tuple[socket.socket, socket.socket]]
PAIRS = pytest.mark.parametrize("pair", [tcp_pair, unix_pair])


def by_the_reactor(pair: Pair) -> MakeClose:
    @contextlib.asynccontextmanager
    async def make(last: bytes) -> AsyncIterator[socket.socket]:
        def defect(handler: Handler, error: Exception) -> None:
            raise error

        loop = asyncio.get_running_loop()
        reactor, deadlines = Reactor(loop, defect), Deadlines(loop, 0.01)
        near, far = pair()
        ended = asyncio.Event()

        class Nothing:
            def on_events(self, fd: int, events: int) -> None:
                return

        reactor.register(near.fileno(), Nothing())
        LingeringClose(reactor, deadlines, near, last, ended.set)
        try:
            with far:
                yield far
            await asyncio.wait_for(ended.wait(), 5)
            assert (near.fileno(), len(reactor), len(deadlines)) == (-1, 0, 0)
        finally:
            deadlines.close()
            reactor.close()

    return make


def by_a_task(pair: Pair) -> MakeClose:
    @contextlib.asynccontextmanager
    async def make(last: bytes) -> AsyncIterator[socket.socket]:
        near, far = pair()
        near.send(last)
        task = asyncio.create_task(lingering_close(near))
        with far:
            yield far
        await asyncio.wait_for(task, 5)
        assert near.fileno() == -1

    return make


@pytest.mark.parametrize("check", CLOSE_CHECKS, ids=name_of)
@PAIRS
async def test_a_close_by_the_reactor(check: CloseCheck, pair: Pair) -> None:
    await check(by_the_reactor(pair))


@pytest.mark.parametrize("check", CLOSE_CHECKS, ids=name_of)
async def test_a_close_by_a_task(check: CloseCheck) -> None:
    await check(by_a_task(tcp_pair))


@PAIRS
async def test_one_that_stays_is_closed_after_a_while(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.05)
    async with by_the_reactor(pair)(b"last") as far:
        await asyncio.sleep(0.2)
        with contextlib.suppress(ConnectionError):
            for _ in range(3):
                far.send(b"still here")
                await asyncio.sleep(0.02)
            pytest.fail("its socket is still open")


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
    (one, near), (two, far) = unix_pair(), narrow_tcp_pair()
    with one, two:
        await send(near, b"last")
        if read:
            two.shutdown(socket.SHUT_WR)
        await lingering_close(near, far)
        assert one.recv(10) == b"last"
        assert (near.fileno(), far.fileno()) == (-1, -1)
