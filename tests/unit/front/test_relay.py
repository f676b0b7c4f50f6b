"""Bytes arrive complete and in order, ends arrive as ends, breaks as breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.front import half_close as tail
from isoproxy.front.direction import COPY_LIMIT, Direction
from isoproxy.front.half_close import HalfCloseTimeout
from isoproxy.front.pipes import PipePool
from isoproxy.front.relay import Relay
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.reactor import Handler, Reactor


class Nothing:
    """Whoever had the sockets before the relay."""

    def on_events(self, fd: int, events: int) -> None:
        return


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


class Bench:
    """A relay between two ends that a test plays: `client` and `tor`."""

    def __init__(self, *, early: bytes = b"", pipes: int = 2, unix: bool = False) -> None:
        def defect(handler: Handler, error: Exception) -> None:
            raise error

        loop = asyncio.get_running_loop()
        self.reactor = Reactor(loop, defect)
        self.pipes = PipePool(1 << 16, pipes)
        self.client, inner = tcp_pair()
        self.tor, outer = socket.socketpair() if unix else tcp_pair()
        for sock in (self.client, inner, self.tor, outer):
            sock.setblocking(False)
        nothing = Nothing()
        self.reactor.register(inner.fileno(), nothing)
        self.reactor.register(outer.fileno(), nothing)
        self.deadlines = Deadlines(loop, 0.01)
        self.tail: HalfCloseTimeout | None = None
        self.finished = asyncio.Event()
        up, down = Direction(inner, outer, early), Direction(outer, inner)
        self.relay = WatchedRelay(self, up, down)
        self.relay.run()

    async def close(self) -> None:
        """After both ends are gone the relay has ended and holds nothing."""
        self.client.close()
        self.tor.close()
        await asyncio.wait_for(self.finished.wait(), 5)
        self.deadlines.close()
        assert len(self.reactor) == 0
        assert self.pipes.lent == 0
        self.pipes.close()
        self.reactor.close()


class WatchedRelay(Relay):
    """Has its bench note that Tor has left it."""

    def __init__(self, bench: Bench, up: Direction, down: Direction) -> None:
        super().__init__(bench.reactor, bench.pipes, up, down, bench.finished.set)
        self.bench = bench

    def on_half_close(self) -> None:
        assert self.bench.tail is None
        self.bench.tail = HalfCloseTimeout(self.bench.deadlines, self)


async def send(sock: socket.socket, data: bytes, *, end: bool = True) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)
    if end:
        sock.shutdown(socket.SHUT_WR)


async def receive(sock: socket.socket, size: int = 1 << 16) -> bytes:
    """Everything up to the end."""
    loop = asyncio.get_running_loop()
    parts = []
    while data := await loop.sock_recv(sock, size):
        parts.append(data)
    return b"".join(parts)


@pytest.fixture(params=[0, 2], ids=["copy", "splice"])
def pipe_count(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_bulk_in_both_directions_at_once(pipe_count: int, unix: bool) -> None:
    bench = Bench(pipes=pipe_count, unix=unix)
    up, down = random.Random(1).randbytes(3_000_001), random.Random(2).randbytes(5_000_003)
    _, _, at_tor, at_client = await asyncio.gather(
        send(bench.client, up), send(bench.tor, down), receive(bench.tor), receive(bench.client)
    )
    assert at_tor == up
    assert at_client == down
    assert (bench.relay.up.moved, bench.relay.down.moved) == (len(up), len(down))
    await bench.close()


async def test_an_upload_that_ends_is_answered_afterwards(pipe_count: int) -> None:
    bench = Bench(pipes=pipe_count)
    upload = os.urandom(COPY_LIMIT * 4)
    _, got = await asyncio.gather(send(bench.client, upload), receive(bench.tor))
    assert got == upload
    assert (bench.relay.up.ended, bench.relay.down.ended) == (True, False)
    await send(bench.tor, b"answer")
    assert await receive(bench.client) == b"answer"
    await bench.close()


async def test_the_applications_early_bytes_come_first() -> None:
    bench = Bench(early=b"early ")
    await send(bench.client, b"and late")
    assert await receive(bench.tor) == b"early and late"
    await bench.close()


async def test_an_end_that_arrives_with_the_last_bytes_is_not_missed() -> None:
    for _ in range(20):
        bench = Bench()
        bench.tor.send(b"all there is")
        bench.tor.shutdown(socket.SHUT_WR)
        assert await asyncio.wait_for(receive(bench.client), 5) == b"all there is"
        await bench.close()


async def test_a_slow_reader_holds_the_sender_back() -> None:
    bench = Bench()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await send(bench.client, b"x" * 65536, end=False)
            sent += 65536

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 0.3)
    assert sent < 32 << 20
    assert bench.relay.up.idle
    total, loop = 0, asyncio.get_running_loop()
    while total < sent:
        total += len(await loop.sock_recv(bench.tor, 1 << 20))
    await bench.close()


async def test_a_reset_is_passed_on_as_a_reset() -> None:
    bench = Bench()
    await send(bench.tor, b"half of it", end=False)
    assert await asyncio.get_running_loop().sock_recv(bench.client, 100) == b"half of it"
    bench.tor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    bench.tor.close()
    with pytest.raises(ConnectionResetError):
        await receive(bench.client)
    await bench.close()


async def test_a_client_that_is_gone_does_not_cut_what_it_sent() -> None:
    bench = Bench(unix=True)
    await send(bench.client, b"post and go", end=False)
    bench.client.close()
    assert await receive(bench.tor) == b"post and go"
    await bench.close()


async def test_the_last_bytes_of_a_far_end_that_closed_reach_the_client() -> None:
    bench = Bench(unix=True)
    await send(bench.tor, b"goodbye", end=False)
    bench.tor.close()
    await asyncio.sleep(0.01)
    bench.client.send(b"too late")
    assert await receive(bench.client) == b"goodbye"
    await bench.close()


@pytest.mark.parametrize("breaks", [False, True], ids=["end", "break"])
async def test_a_client_that_still_speaks_when_tor_ends_gets_all_that_came_before(
    pipe_count: int, breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tor's socket is reset where the kernel holds bytes that Tor has not read."""
    monkeypatch.setattr(tail, "LOOK_AGAIN_S", 0.01)
    loop = asyncio.get_running_loop()
    bench = Bench(pipes=pipe_count, unix=True)
    bench.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    answer = os.urandom(400_000)
    if breaks:
        await send(bench.client, b"never read", end=False)
        await asyncio.sleep(0.02)
    await send(bench.tor, answer, end=False)
    bench.tor.close()
    speaking = asyncio.ensure_future(send(bench.client, bytes(4 << 20), end=False))
    await asyncio.sleep(0.1)
    got = bytearray()
    ended = False
    with contextlib.suppress(ConnectionResetError):
        while data := await loop.sock_recv(bench.client, 1 << 16):
            got += data
        ended = True
    assert (len(got), got == answer) == (len(answer), True)
    assert ended is not breaks
    await asyncio.gather(speaking, return_exceptions=True)
    await bench.close()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_a_client_that_stays_after_the_end_is_ended(
    unix: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "TAIL_S", 0.05)
    bench = Bench(unix=unix)
    await send(bench.tor, b"all there is", end=not unix)
    if unix:
        bench.tor.close()
    await asyncio.wait_for(bench.finished.wait(), 1)
    assert await receive(bench.client) == b"all there is"
    await bench.close()


async def test_a_client_that_still_reads_or_is_still_heard_is_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail, "TAIL_S", 0.2)
    loop = asyncio.get_running_loop()
    bench = Bench()
    bench.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    await send(bench.tor, bytes(600_000))
    await asyncio.sleep(0.5)
    assert not bench.finished.is_set(), "the client has not taken all"

    async def talk() -> None:
        while True:
            await send(bench.client, b"heard", end=False)
            assert await loop.sock_recv(bench.tor, 100) == b"heard"
            await asyncio.sleep(0.01)

    talking = asyncio.ensure_future(talk())
    await asyncio.sleep(0.02)
    assert len(await receive(bench.client)) == 600_000
    await asyncio.sleep(0.5)
    assert not bench.finished.is_set(), "Tor still takes what the client says"
    talking.cancel()
    await asyncio.wait_for(bench.finished.wait(), 1)
    await bench.close()


async def test_abort_resets_both_sides_once() -> None:
    bench = Bench()
    await send(bench.client, b"x", end=False)
    await asyncio.sleep(0.01)
    bench.relay.abort()
    bench.relay.abort()
    assert bench.finished.is_set()
    with pytest.raises(ConnectionResetError):
        await receive(bench.client)
    await bench.close()


async def test_relays_share_their_turns() -> None:
    """Two bulk streams progress together: neither waits for the other's end."""
    benches = [Bench(), Bench()]
    loop = asyncio.get_running_loop()
    feeding = [asyncio.ensure_future(send(bench.tor, b"x" * (32 << 20))) for bench in benches]
    counts = [0, 0]
    for _ in range(60):
        for index, bench in enumerate(benches):
            counts[index] += len(await loop.sock_recv(bench.client, 1 << 17))
    assert min(counts) > max(counts) / 4
    for bench in benches:
        await receive(bench.client)
        await bench.close()
    await asyncio.gather(*feeding)


@settings(max_examples=30)
@given(
    st.lists(st.binary(min_size=1, max_size=3000), max_size=8),
    st.lists(st.binary(min_size=1, max_size=3000), max_size=8),
    st.booleans(),
)
def test_any_chunks_arrive_in_order(up: list[bytes], down: list[bytes], unix: bool) -> None:
    async def play() -> None:
        bench = Bench(unix=unix)

        async def feed(sock: socket.socket, chunks: list[bytes]) -> None:
            for chunk in chunks:
                await send(sock, chunk, end=False)
                await asyncio.sleep(0)
            sock.shutdown(socket.SHUT_WR)

        _, _, at_tor, at_client = await asyncio.gather(
            feed(bench.client, up), feed(bench.tor, down), receive(bench.tor), receive(bench.client)
        )
        assert at_tor == b"".join(up)
        assert at_client == b"".join(down)
        await bench.close()

    asyncio.run(play())
