"""Messages and sockets between two ends in one process."""

from __future__ import annotations

import array
import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from isoproxy.net.reactor import Handler, Reactor
from isoproxy.workers.channel import BATCH, MAX_MESSAGE, MAX_QUEUED, Channel, pair
from tests.kit.waiting import until


@dataclass
class End:
    """One end, and what it got."""

    channel: Channel
    sock: socket.socket
    got: list[tuple[bytes, list[socket.socket]]] = field(default_factory=list)
    ended: int = 0


def end_on(reactor: Reactor, sock: socket.socket, *, takes_sockets: bool) -> End:
    def note_end() -> None:
        end.ended += 1

    def note(data: bytes, sockets: list[socket.socket]) -> None:
        end.got.append((data, sockets))

    channel = Channel(reactor, sock, note, note_end, takes_sockets=takes_sockets)
    end = End(channel, sock)
    return end


@asynccontextmanager
async def two_ends(*, takes_sockets: bool = True) -> AsyncIterator[tuple[End, End]]:
    def defect(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), defect)
    left, right = (end_on(reactor, sock, takes_sockets=takes_sockets) for sock in pair())
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


async def test_what_found_no_room_goes_on_as_soon_as_there_is_some() -> None:
    """Nothing comes back meanwhile, and nothing is sent any more."""
    async with two_ends() as (left, right):
        for number in range(MAX_QUEUED // 2):
            left.channel.send(b"%d " % number + bytes(1000))
        assert left.channel.backlog
        await until(lambda: len(right.got) == MAX_QUEUED // 2)
        assert left.channel.backlog == 0


async def test_others_have_their_turn_between_messages() -> None:
    async with two_ends() as (left, right):
        for _ in range(BATCH * 10):
            left.channel.send(b"x")
        seen = set()
        while len(right.got) < BATCH * 10:
            await asyncio.sleep(0)
            seen.add(len(right.got))
        assert len(seen) >= 10


async def test_a_socket_works_there_and_may_be_closed_here_at_once() -> None:
    async with two_ends() as (left, right):
        near, far = socket.socketpair()
        with near:
            while not left.channel.backlog:
                left.channel.send(b"x" * 1000)
            left.channel.send(b"take it", [far])
            far.close()
            await until(lambda: right.got and right.got[-1][0] == b"take it")
            (taken,) = right.got[-1][1]
            with taken:
                taken.send(b"hello")
                assert near.recv(5) == b"hello"
                assert not taken.get_inheritable()


async def test_a_socket_that_does_not_block_stays_so_on_its_way() -> None:
    """Python's own idea of it may be another: whether it blocks is shared by all processes."""
    async with two_ends() as (left, right):
        near, far = socket.socketpair()
        with near, far:
            os.set_blocking(far.fileno(), False)
            left.channel.send(b"take it", [far])
            await until(lambda: right.got)
            ((_, (taken,)),) = right.got
            with taken:
                assert not os.get_blocking(taken.fileno())


async def test_sockets_that_are_not_taken_are_the_end_and_leave_none_open() -> None:
    async with two_ends(takes_sockets=False) as (left, right):
        near, far = socket.socketpair()
        with near, far:
            numbers = array.array("i", [far.fileno()])
            before = len(os.listdir("/proc/self/fd"))
            left.sock.sendmsg([b"take it"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
            await until(lambda: right.ended)
            await until(lambda: left.ended)
            assert right.got == []
            assert len(os.listdir("/proc/self/fd")) == before - 2


async def test_without_descriptors_for_its_sockets_a_message_is_the_end() -> None:
    async with two_ends() as (left, right):
        with socket.socket() as sock:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            try:
                left.channel.send(b"take it", [sock])
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert left.ended
        await until(lambda: right.ended)


async def test_what_is_not_read_waits_and_a_queue_without_end_ends_it() -> None:
    async with two_ends() as (left, right):
        near, far = socket.socketpair()
        before = len(os.listdir("/proc/self/fd"))
        count = 0
        while not left.ended:  # the other end has no turn meanwhile
            left.channel.send(b"x" * 1000)
            if count == MAX_QUEUED // 2:
                left.channel.send(b"and a socket", [far])
            count += 1
        assert count > MAX_QUEUED
        assert len(os.listdir("/proc/self/fd")) == before - 1
        near.close()
        far.close()
        await until(lambda: right.ended)


@pytest.mark.parametrize("message", [b"x" * (MAX_MESSAGE + 1)])
async def test_a_message_that_is_too_long_ends_it(message: bytes) -> None:
    async with two_ends() as (left, right):
        left.channel.send(message)
        assert left.ended == 1
        await until(lambda: right.ended)


async def test_a_message_that_is_too_long_is_not_read() -> None:
    async with two_ends() as (left, right):
        left.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        left.sock.send(b"x" * (MAX_MESSAGE + 1))
        await until(lambda: right.ended)
        assert right.got == []


async def test_a_message_that_finds_no_descriptors_left_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_ends() as (left, right):
        made: list[int] = []

        def dup(number: int, real: Callable[[int], int] = os.dup) -> int:
            if len(made) == 2:
                raise OSError
            made.append(real(number))
            return made[-1]

        monkeypatch.setattr("isoproxy.workers.channel.os.dup", dup)
        left.channel.send(b"sockets", [left.sock] * 3)
        assert left.ended == 1
        for number in made:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
        await until(lambda: right.ended)
