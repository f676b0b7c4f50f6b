"""A relay with its clocks, for those who await its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from isoproxy.bitcoin.flow import ClosedBy
from isoproxy.front import half_close, timed_relay
from isoproxy.front.services import FrontSettings, Limits
from isoproxy.front.timed_relay import relay_stream
from tests.kit.waiting import until
from tests.unit.front.services import front_services


@dataclass
class Counts:
    bytes_up: int = 0
    bytes_down: int = 0


@contextlib.asynccontextmanager
async def relayed(
    counts: Counts, first: bytes = b"", limits: Limits | None = None
) -> AsyncIterator[tuple[socket.socket, socket.socket, asyncio.Task[ClosedBy]]]:
    """The ends of a client and of a peer whose stream is relayed, and the relaying task."""
    with front_services(FrontSettings(limits or Limits()), tick_s=0.01) as services:
        client, near = socket.socketpair()
        peer, far = socket.socketpair()
        for sock in (client, near, peer, far):
            sock.setblocking(False)
        task = asyncio.create_task(relay_stream(services, near, far, first, counts))
        with client, peer:
            yield client, peer, task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (near.fileno(), far.fileno()) == (-1, -1)
        assert (len(services.reactor), len(services.deadlines)) == (0, 0)


async def receive(sock: socket.socket, size: int = 4096) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(sock, size)


async def test_what_was_read_already_goes_first_and_everything_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timed_relay, "COUNT_S", 0.01)
    counts = Counts(100, 200)
    async with relayed(counts, b"first ") as (client, peer, task):
        client.send(b"then")
        assert await receive(peer) in (b"first ", b"first then")
        peer.send(b"answer")
        assert await receive(client) == b"answer"
        await until(lambda: (counts.bytes_up, counts.bytes_down) == (110, 206), 5)
        client.send(b"!")
        client.shutdown(socket.SHUT_WR)
        peer.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(task, 5)
        assert (counts.bytes_up, counts.bytes_down) == (111, 206)


async def test_one_that_is_cancelled_resets_both_sides() -> None:
    counts = Counts()
    async with relayed(counts) as (client, peer, task):
        client.send(b"said")
        assert await receive(peer) == b"said"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await receive(peer) == b""
        assert counts.bytes_up == 4


async def test_one_that_is_idle_is_ended() -> None:
    async with relayed(Counts(), limits=Limits(idle_timeout_s=0.05)) as (client, _, task):
        assert await asyncio.wait_for(task, 5) is ClosedBy.US
        assert await receive(client) == b""


@pytest.mark.parametrize("first", [ClosedBy.CLIENT, ClosedBy.PEER])
async def test_whose_end_came_first_is_told(first: ClosedBy) -> None:
    async with relayed(Counts()) as (client, peer, task):
        ends = (client, peer) if first is ClosedBy.CLIENT else (peer, client)
        for leaver, other in (ends, ends[::-1]):
            leaver.shutdown(socket.SHUT_WR)
            assert await receive(other) == b""
        assert await asyncio.wait_for(task, 5) is first


async def test_a_client_that_resets_is_the_one_that_closed() -> None:
    async with relayed(Counts()) as (client, peer, task):
        peer.send(b"nobody reads this")
        await asyncio.sleep(0.01)
        client.close()
        assert await asyncio.wait_for(task, 5) is ClosedBy.CLIENT


async def test_a_client_that_stays_after_the_peers_end_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(half_close, "TAIL_S", 0.05)
    async with relayed(Counts()) as (client, peer, task):
        peer.send(b"all there is")
        peer.shutdown(socket.SHUT_WR)
        assert await receive(client) == b"all there is"
        await asyncio.wait_for(task, 5)
