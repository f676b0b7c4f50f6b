"""What every byte stream of ours must do, whatever carries it: after trio's `check_*_stream`.

A test says how its stream is made: `make()` is an async context manager that gives two
connected, non-blocking sockets, the far ends, with what is tested between them.

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_the_stream(check: Check) -> None:
        await check(make)

CHECKS hold for all; HALF_CLOSE_CHECKS for what forwards the end of one side; RESET_CHECKS for
what joins two TCP connections; CLOSE_CHECKS for what says last bytes and closes: there
`make(last)` gives the far end of a connection that is being closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

SECONDS: Final = 20.0
"""After which a check has failed."""
BIG: Final = 3_000_001
MOST_HELD: Final = 32 << 20
"""Bytes that kernel and stream may hold of one sender whom nobody reads."""
STALLED_TURNS: Final = 20
"""After so many turns of the loop in which nothing was taken, a sender is held back."""
RESET_ON_CLOSE: Final = b"\x01\0\0\0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Ends:
    """The far ends of a stream."""

    client: socket.socket
    peer: socket.socket

    def both_ways(self) -> tuple[tuple[socket.socket, socket.socket], ...]:
        """(sender, receiver) from the client to the peer, and back."""
        return (self.client, self.peer), (self.peer, self.client)


MakeStream = Callable[[], AbstractAsyncContextManager[Ends]]
Check = Callable[[MakeStream], Awaitable[None]]
MakeClose = Callable[[bytes], AbstractAsyncContextManager[socket.socket]]
CloseCheck = Callable[[MakeClose], Awaitable[None]]


def name_of(check: Callable[..., object]) -> str:
    """A check's name, for the reports of tests."""
    return check.__name__.removeprefix("check_")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking TCP sockets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking unix sockets."""
    near, far = socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it."""
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer only at the end."""
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < size and (data := await loop.sock_recv(sock, min(size - len(got), 1 << 16))):
        got += data
    return bytes(got)


async def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end."""
    return await receive(sock, 1 << 30)


# All streams


async def check_messages_come_in_order_both_ways(make: MakeStream) -> None:
    async with asyncio.timeout(SECONDS), make() as ends:
        for number in range(50):
            for sender, receiver in ends.both_ways():
                message = b"message %d" % number
                await send(sender, message)
                assert await receive(receiver, len(message)) == message


async def check_much_passes_both_ways_at_once(make: MakeStream) -> None:
    async with asyncio.timeout(SECONDS), make() as ends:
        up, down = random.Random(1).randbytes(BIG), random.Random(2).randbytes(BIG + 2)
        _, _, at_peer, at_client = await asyncio.gather(
            send(ends.client, up),
            send(ends.peer, down),
            receive(ends.peer, len(up)),
            receive(ends.client, len(down)),
        )
        assert at_peer == up
        assert at_client == down


async def check_pieces_of_any_size_arrive_whole(make: MakeStream) -> None:
    async with asyncio.timeout(SECONDS), make() as ends:
        chance = random.Random(3)
        for sender, receiver in ends.both_ways():
            sizes = [chance.choice((1, 2, 1000, 16384, 70000)) for _ in range(40)]
            data = chance.randbytes(sum(sizes))

            async def feed(sender: socket.socket, sizes: list[int], data: bytes) -> None:
                for size in sizes:
                    await send(sender, data[:size])
                    data = data[size:]
                    await asyncio.sleep(0)

            feeding = asyncio.create_task(feed(sender, sizes, data))
            assert await receive(receiver, len(data)) == data
            await feeding


async def check_a_slow_reader_holds_the_sender_back(make: MakeStream) -> None:
    async with asyncio.timeout(SECONDS), make() as ends:
        for sender, receiver in ends.both_ways():
            sent = turns = 0
            while sent <= MOST_HELD and turns < STALLED_TURNS:
                try:
                    sent += sender.send(bytes(1 << 16))
                    turns = 0
                except BlockingIOError:
                    turns += 1
                    await asyncio.sleep(0.01)
            assert 0 < sent <= MOST_HELD
            assert len(await receive(receiver, sent)) == sent


async def check_the_end_of_a_side_comes_after_all_its_bytes(make: MakeStream) -> None:
    for number in (0, 1):
        async with asyncio.timeout(SECONDS), make() as ends:
            sender, receiver = ends.both_ways()[number]
            data = random.Random(4).randbytes(200_000)
            sending = asyncio.create_task(send(sender, data))
            got = await receive(receiver, len(data))
            await sending
            sender.shutdown(socket.SHUT_WR)
            assert got + await receive_all(receiver) == data


async def check_a_side_that_closes_frees_the_other(make: MakeStream) -> None:
    """Which may be told by an end or a reset, but is told."""
    for number in (0, 1):
        async with asyncio.timeout(SECONDS), make() as ends:
            leaver, other = ends.both_ways()[number]
            await send(other, b"nobody reads this")
            leaver.close()
            with contextlib.suppress(ConnectionError):
                await receive_all(other)


# Streams with a half-close


async def check_the_other_side_may_answer_after_an_end(make: MakeStream) -> None:
    for number in (0, 1):
        async with asyncio.timeout(SECONDS), make() as ends:
            sender, receiver = ends.both_ways()[number]
            await send(sender, b"question")
            sender.shutdown(socket.SHUT_WR)
            assert await receive_all(receiver) == b"question"
            answer = random.Random(5).randbytes(BIG)
            answering = asyncio.create_task(send(receiver, answer))
            assert await receive(sender, len(answer)) == answer
            await answering
            receiver.shutdown(socket.SHUT_WR)
            assert await receive_all(sender) == b""


async def check_an_end_at_once_is_an_end(make: MakeStream) -> None:
    async with asyncio.timeout(SECONDS), make() as ends:
        for sender, _ in ends.both_ways():
            sender.shutdown(socket.SHUT_WR)
        for _, receiver in ends.both_ways():
            assert await receive_all(receiver) == b""


async def check_last_bytes_and_end_in_one_moment(make: MakeStream) -> None:
    for number in (0, 1):
        async with asyncio.timeout(SECONDS), make() as ends:
            sender, receiver = ends.both_ways()[number]
            sender.send(b"all there is")
            sender.shutdown(socket.SHUT_WR)
            assert await receive_all(receiver) == b"all there is"


# Streams between two TCP connections


async def check_a_reset_is_no_orderly_end(make: MakeStream) -> None:
    for number in (0, 1):
        async with asyncio.timeout(SECONDS), make() as ends:
            sender, receiver = ends.both_ways()[number]
            await send(sender, b"half of it")
            assert await receive(receiver, 10) == b"half of it"
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sender.close()
            try:
                got = await receive_all(receiver)
            except ConnectionResetError:
                continue
            raise AssertionError(f"a reset became an end after {len(got)} bytes")


# What says last bytes and closes


async def check_last_bytes_arrive_although_nobody_read_us(make: MakeClose) -> None:
    """A close over unread bytes would reset the connection and destroy them."""
    last = random.Random(6).randbytes(10_000)
    async with asyncio.timeout(SECONDS), make(last) as far:
        with contextlib.suppress(ConnectionError):  # it may be content that all has arrived
            for _ in range(5):
                await send(far, bytes(10_000))
                await asyncio.sleep(0.005)
        assert await receive_all(far) == last


async def check_it_is_closed_when_the_far_end_is(make: MakeClose) -> None:
    async with asyncio.timeout(SECONDS), make(b"last") as far:
        assert await receive_all(far) == b"last"
        far.shutdown(socket.SHUT_WR)


async def check_one_that_says_too_much_is_cut(make: MakeClose) -> None:
    async with asyncio.timeout(SECONDS), make(b"last") as far:
        with contextlib.suppress(ConnectionError):
            while True:
                await send(far, bytes(1 << 16))


CHECKS: Final[tuple[Check, ...]] = (
    check_messages_come_in_order_both_ways,
    check_much_passes_both_ways_at_once,
    check_pieces_of_any_size_arrive_whole,
    check_a_slow_reader_holds_the_sender_back,
    check_the_end_of_a_side_comes_after_all_its_bytes,
    check_a_side_that_closes_frees_the_other,
)
HALF_CLOSE_CHECKS: Final[tuple[Check, ...]] = (
    check_the_other_side_may_answer_after_an_end,
    check_an_end_at_once_is_an_end,
    check_last_bytes_and_end_in_one_moment,
)
RESET_CHECKS: Final[tuple[Check, ...]] = (check_a_reset_is_no_orderly_end,)
CLOSE_CHECKS: Final[tuple[CloseCheck, ...]] = (
    check_last_bytes_arrive_although_nobody_read_us,
    check_it_is_closed_when_the_far_end_is,
    check_one_that_says_too_much_is_cut,
)
