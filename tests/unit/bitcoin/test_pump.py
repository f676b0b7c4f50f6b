"""The pump alone: bytes carried, order kept, the last ones delivered, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.bitcoin import pump as module
from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.converter import Ending, FirstBytes, Side
from isoproxy.bitcoin.options import Deadlines
from isoproxy.bitcoin.pump import no_delay, pump
from tests.unit.bitcoin.ends import pair, receive_exactly, send


class Straight:
    """A converter that changes nothing."""

    def __init__(self) -> None:
        up, down = ByteQueue(), ByteQueue()
        self.client, self.peer = Side(up, down), Side(down, up)

    def accepts(self, side: Side) -> bool:
        return True

    def received(self, side: Side, size: int, now: float) -> None:
        side.inbox.added(size)

    def closed(self, side: Side) -> Ending:
        return Ending.CLIENT_CLOSED if side is self.client else Ending.PEER_CLOSED

    def deadline(self) -> float:
        return asyncio.get_running_loop().time() + 1200

    def on_deadline(self, now: float) -> Ending | None:
        return None

    def trim(self) -> None:
        for side in (self.client, self.peer):
            side.inbox.trim()


def relay() -> Straight:
    return Straight()


@given(st.binary(min_size=1, max_size=200_000), st.integers(1, 20))
@settings(max_examples=10)
def test_all_bytes_arrive_in_order(data: bytes, copies: int) -> None:
    async def scenario() -> None:
        (client, near), (peer, far) = pair(), pair()
        task = asyncio.create_task(pump(relay(), near, far, linger=5, from_peer=b"early"))
        sending = asyncio.create_task(send(client, data * copies))
        assert await receive_exactly(client, 5) == b"early"
        assert await receive_exactly(peer, len(data) * copies) == data * copies
        await sending
        client.close()
        assert await task is Ending.CLIENT_CLOSED
        for sock in (near, peer, far):
            sock.close()

    asyncio.run(scenario())


async def test_the_sockets_stay_open_and_unwatched() -> None:
    (client, near), (peer, far) = pair(), pair()
    with near, far, peer:
        task = asyncio.create_task(pump(relay(), near, far, linger=5))
        await send(client, b"last")
        client.close()
        assert await task is Ending.CLIENT_CLOSED
        assert await receive_exactly(peer, 4) == b"last"
        loop = asyncio.get_running_loop()
        for sock in (near, far):
            assert not loop.remove_reader(sock)
            assert not loop.remove_writer(sock)


@pytest.mark.virtual_clock
async def test_a_receiver_that_never_reads_is_given_up_after_the_linger_time() -> None:
    (client, near), (peer, far) = pair(), pair()
    with near, far, peer, client:
        task = asyncio.create_task(pump(relay(), near, far, linger=7))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await loop.sock_sendall(client, bytes(10_000_000))
        client.shutdown(socket.SHUT_WR)
        peer.shutdown(socket.SHUT_WR)
        assert await task in {Ending.PEER_CLOSED, Ending.CLIENT_CLOSED}
        assert 8 <= loop.time() < 45


async def test_a_reset_is_a_close() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        client = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    peer, far = pair()
    with near, far, peer:
        task = asyncio.create_task(pump(relay(), near, far, linger=5))
        await asyncio.sleep(0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0" + bytes(4))
        client.close()
        assert await task is Ending.CLIENT_CLOSED


def test_small_writes_are_not_delayed() -> None:
    with socket.socket() as sock:
        no_delay(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    one, two = socket.socketpair()
    with one, two:
        no_delay(one)


def holding() -> FirstBytes[bytes]:
    now = asyncio.get_running_loop().time()
    return FirstBytes(lambda held: held or None, now=now, deadlines=Deadlines(idle=100))


@pytest.mark.virtual_clock
async def test_what_is_handed_on_loses_nothing_to_a_slow_client() -> None:
    (client, near), (peer, far) = pair(), pair()
    with near, far, peer, client:
        stage = holding()
        early = bytes(range(256)) * 20_000
        task = asyncio.create_task(pump(stage, near, far, linger=5, from_peer=early))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"hello")
        await asyncio.sleep(50)
        assert not task.done()
        received = b""
        while len(received) < len(early):
            received += await loop.sock_recv(client, 1 << 20)
        assert await task is Ending.HANDED_ON
        assert received == early


@pytest.mark.virtual_clock
async def test_a_client_that_never_reads_is_not_handed_on() -> None:
    (client, near), (peer, far) = pair(), pair()
    with near, far, peer, client:
        task = asyncio.create_task(pump(holding(), near, far, linger=5, from_peer=bytes(9 << 20)))
        await asyncio.get_running_loop().sock_sendall(client, b"hello")
        assert await task is Ending.IDLE


class Costly(Straight):
    """A converter that takes `seconds_per_byte` of processor time on `clock`, and drops all."""

    def __init__(self, clock: list[float], seconds_per_byte: float) -> None:
        super().__init__()
        self.clock, self.seconds_per_byte = clock, seconds_per_byte
        self.sizes: list[int] = []

    def received(self, side: Side, size: int, now: float) -> None:
        self.clock[0] += size * self.seconds_per_byte
        self.sizes.append(size)


async def flooded(monkeypatch: pytest.MonkeyPatch, seconds_per_byte: float) -> Costly:
    """What a converter was given in 0.6 s by a client that sends as fast as it can."""
    clock = [0.0]
    monkeypatch.setattr(module, "thread_time", lambda: clock[0])
    converter = Costly(clock, seconds_per_byte)
    (client, near), (peer, far) = pair(), pair()
    with client, near, peer, far:
        task = asyncio.create_task(pump(converter, near, far, linger=5))
        flood = asyncio.create_task(send(client, bytes(1 << 28)))
        await asyncio.sleep(0.6)
        for one in (flood, task):
            one.cancel()
        await asyncio.wait([flood, task])
    return converter


async def test_a_side_whose_bytes_cost_much_rests_and_is_read_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decoys and messages of a byte took 14 to 25 ms in one turn, and all of a processor."""
    converter = await flooded(monkeypatch, 1e-6)
    assert converter.clock[0] < module.BURST_S + 16 * 1024 * 1e-6 + 2 * 0.6 * module.SHARE
    assert max(converter.sizes[1:]) * 1e-6 <= 1.1 * module.TURN_S
    assert len(converter.sizes) > 5


async def test_bytes_of_usual_cost_are_not_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    converter = await flooded(monkeypatch, 1e-8)
    assert sum(converter.sizes) > 1 << 23
    assert max(converter.sizes) == 64 * 1024
