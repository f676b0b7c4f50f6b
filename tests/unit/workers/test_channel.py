"""Messages and sockets between two ends in one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from isoproxy.net.reactor import Handler, Reactor
from isoproxy.workers.channel import MAX_MESSAGE, MAX_QUEUED, Channel, pair
from tests.kit.waiting import until


@dataclass
class End:
    """One end, and what it got."""

    channel: Channel
    got: list[tuple[bytes, list[socket.socket]]] = field(default_factory=list)
    ended: int = 0


def end_on(reactor: Reactor, sock: socket.socket) -> End:
    def note_end() -> None:
        end.ended += 1

    channel = Channel(reactor, sock, lambda data, socks: end.got.append((data, socks)), note_end)
    end = End(channel)
    return end


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End]]:
    def defect(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), defect)
    left, right = (end_on(reactor, sock) for sock in pair())
    yield left, right
    left.channel.close()
    right.channel.close()
    assert (left.ended, right.ended) == (1, 1)
    assert len(reactor) == 0
    reactor.close()


async def test_messages_keep_their_order_and_their_ends() -> None:
    async with two_ends() as (left, right):
        words = [b"one", b"two", b"x" * MAX_MESSAGE]
        for word in words:
            left.channel.send(word)
        await until(lambda: len(right.got) == 3)
        assert [data for data, _ in right.got] == words


async def test_a_socket_that_is_given_works_there_and_is_closed_here() -> None:
    async with two_ends() as (left, right):
        near, far = socket.socketpair()
        with near:
            left.channel.send(b"take it", [far], give=True)
            await until(lambda: right.got)
            assert far.fileno() == -1
            ((_, (taken,)),) = right.got
            with taken:
                taken.send(b"hello")
                assert near.recv(5) == b"hello"
                assert not taken.get_inheritable()


async def test_what_is_not_read_waits_and_a_queue_without_end_ends_it() -> None:
    async with two_ends() as (left, right):
        near, far = socket.socketpair()
        count = 0
        while not left.ended:  # the other end has no turn meanwhile
            left.channel.send(b"x" * 1000)
            if count == MAX_QUEUED // 2:
                left.channel.send(b"and a socket", [far], give=True)
            count += 1
        assert count > MAX_QUEUED
        assert far.fileno() == -1
        near.close()
        await until(lambda: right.ended)


async def test_a_message_that_is_too_long_ends_it() -> None:
    async with two_ends() as (left, right):
        left.channel.send(b"x" * (MAX_MESSAGE + 1))
        assert left.ended == 1
        await until(lambda: right.ended)
