"""Bitcoin v1 on ports that are not listed, and other protocols, which notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from isoproxy.bitcoin.carry import Carrier
from isoproxy.bitcoin.flows import Outcome
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, padded
from isoproxy.bitcoin.options import Fallback
from isoproxy.bitcoin.v1 import encode
from isoproxy.front import watching
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.watching import READ_SIZE
from isoproxy.isolation import APP, P2P, upstream_credentials
from isoproxy.socks import Request, Server
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.unit.front.test_bitcoin import REQUEST, VERSION, ask, front_end, leave

NOWHERE: frozenset[int] = frozenset()
TX = encode(KNOWN_NETWORKS.named("signet"), padded("tx"), bytes(60))


class Peers:
    """What the far ends of all streams heard; each says `greeting` first."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.heard: list[bytes] = []

    async def __call__(
        self,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server: Server,
    ) -> None:
        writer.write(server.succeed() + self.greeting)
        number = len(self.heard)
        self.heard.append(server.leftover)
        while data := await reader.read(4096):
            self.heard[number] += data


@asynccontextmanager
async def world(
    peers: Peers, fallback: Fallback = Fallback.NEVER, *, everywhere: bool = True
) -> AsyncIterator[tuple[SocksPort, FrontEnd]]:
    async with (
        SocksPort(peers) as port,
        front_end(port, fallback, ports=NOWHERE, everywhere=everywhere) as front,
    ):
        yield port, front


async def is_reset(reader: asyncio.StreamReader) -> bool:
    """Whether the connection is reset within five seconds."""
    try:
        await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


@pytest.mark.parametrize("fallback", list(Fallback))
@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("first", [VERSION, TX])
async def test_v1_on_any_port_is_dialled_again_for_bitcoin_and_never_leaves_as_it_is(
    first: bytes, piece: int, fallback: Fallback
) -> None:
    peers = Peers()
    async with world(peers, fallback) as (port, front):
        _, writer = await ask(front, REQUEST)
        (connection,) = front.connections
        assert connection.request is not None
        key = connection.request.key
        with contextlib.suppress(ConnectionResetError):  # what was heard is judged below
            for start in range(0, len(first), piece):
                writer.write(first[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)
        await until(lambda: len(peers.heard) == 2 and len(peers.heard[1]) >= 64)
        purposes = [upstream_credentials(key, purpose).password for purpose in (APP, P2P)]
        assert [request.password for request in port.requests] == purposes
        assert peers.heard[0] == b""
        assert first[:4] not in peers.heard[1]
        await leave(writer)


async def test_v1_that_comes_with_the_request_is_dialled_for_bitcoin_alone() -> None:
    peers = Peers()
    async with world(peers) as (port, front):
        _, writer = await ask(front, REQUEST + VERSION)
        await until(lambda: len(peers.heard) == 1 and len(peers.heard[0]) >= 64)
        (connection,) = front.connections
        assert connection.request is not None
        p2p = upstream_credentials(connection.request.key, P2P)
        assert [request.password for request in port.requests] == [p2p.password]
        await leave(writer)


async def test_a_server_that_speaks_first_is_heard_at_once() -> None:
    peers = Peers(b"220 hello\r\n")
    async with world(peers) as (port, front):
        reader, writer = await ask(front, REQUEST)
        assert await reader.readline() == b"220 hello\r\n"
        for said in (b"\x0a", b"EHLO there\r\n"):  # one network's magic begins with 0a
            writer.write(said)
            await asyncio.sleep(0.01)
        await until(lambda: peers.heard == [b"\x0aEHLO there\r\n"])
        await leave(writer)
        assert len(port.requests) == 1


@pytest.mark.parametrize("fallback", list(Fallback))
async def test_v1_after_the_peer_has_spoken_ends_the_client(fallback: Fallback) -> None:
    peers = Peers(VERSION)
    async with world(peers, fallback) as (port, front):
        reader, writer = await ask(front, REQUEST)
        assert await reader.readexactly(len(VERSION)) == VERSION
        writer.write(VERSION)
        assert await is_reset(reader)
        writer.close()
        carrier = front.services.bitcoin
        assert isinstance(carrier, Carrier)
        await until(lambda: carrier.registry.totals().outcomes == {Outcome.REFUSED: 1})
        assert peers.heard == [b""]
        assert len(port.requests) == 1


@pytest.mark.parametrize("early", [b"", b"\xf9", b"\xf9\xbe\xb4"])
async def test_what_only_begins_like_v1_passes_whole(early: bytes) -> None:
    peers = Peers()
    async with world(peers) as (port, front):
        _, writer = await ask(front, REQUEST + early)
        await asyncio.sleep(0.01)
        writer.write(b"\xf9 something else")
        await until(lambda: peers.heard == [early + b"\xf9 something else"])
        writer.write(b" and more")
        await until(lambda: peers.heard == [early + b"\xf9 something else and more"])
        await leave(writer)
        assert len(port.requests) == 1


@pytest.mark.parametrize("early", [b"", b"\xf9"])
async def test_a_client_whose_first_bytes_could_become_v1_is_not_held_for_long(
    monkeypatch: pytest.MonkeyPatch, early: bytes
) -> None:
    monkeypatch.setattr(watching, "HOLD_S", 0.01)
    peers = Peers()
    async with world(peers) as (port, front):
        _, writer = await ask(front, REQUEST + early)
        if not early:
            writer.write(b"\xf9")
        await until(lambda: peers.heard == [b"\xf9"])
        writer.write(b"\xbe")
        await until(lambda: peers.heard == [b"\xf9\xbe"])
        writer.write(b" something else")
        await until(lambda: peers.heard == [b"\xf9\xbe something else"])
        await leave(writer)
        assert len(port.requests) == 1


async def test_a_magic_that_comes_in_pieces_is_ended_with_less_than_a_magic_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "HOLD_S", 0.01)
    peers = Peers()
    async with world(peers) as (port, front):
        reader, writer = await ask(front, REQUEST)
        writer.write(VERSION[:3])
        await until(lambda: peers.heard == [VERSION[:3]])
        writer.write(VERSION[3:])
        assert await is_reset(reader)
        writer.close()
        await until(lambda: not front.connections and not port.open)
        assert peers.heard == [VERSION[:3]]
        assert len(port.requests) == 1


async def test_a_client_that_ends_with_the_beginning_of_a_magic_is_heard_whole() -> None:
    peers = Peers()
    async with world(peers) as (_, front):
        _, writer = await ask(front, REQUEST)
        writer.write(b"\xf9\xbe")
        writer.write_eof()
        await until(lambda: peers.heard == [b"\xf9\xbe"] and not front.connections)
        await leave(writer)


async def test_a_client_that_says_more_than_is_read_at_once_is_heard_whole() -> None:
    peers, much = Peers(), bytes(3 * READ_SIZE)
    async with world(peers) as (_, front):
        _, writer = await ask(front, REQUEST)
        writer.write(much)
        await until(lambda: peers.heard == [much])
        writer.write(b"more")
        await until(lambda: peers.heard == [much + b"more"])
        await leave(writer)


class Calls:
    """Counts the system calls with which a socket is read and written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: Counter[tuple[str, int]] = Counter()
        for name in ("recv", "recv_into", "send"):
            monkeypatch.setattr(socket.socket, name, self._counting(name))

    def _counting(self, name: str) -> Callable[..., object]:
        call = getattr(socket.socket, name)

        def counted(sock: socket.socket, *arguments: object) -> object:
            self.made[name[:4], sock.fileno()] += 1
            return call(sock, *arguments)

        return counted


async def reads(calls: Calls, *, everywhere: bool) -> int:
    """How often a client is read from that is greeted by its server, and answers."""
    peers = Peers(b"220 hello\r\n")
    async with world(peers, everywhere=everywhere) as (_, front):
        calls.made.clear()
        reader, writer = await ask(front, REQUEST)
        (connection,) = front.connections
        fd = connection.sock.fileno()
        assert await reader.readline() == b"220 hello\r\n"
        await asyncio.sleep(0.01)
        before = calls.made["recv", fd]
        writer.write(b"EHLO there\r\n")
        await until(lambda: peers.heard == [b"EHLO there\r\n"])
        assert calls.made["recv", fd] == before + 1
        await leave(writer)
    return before + 1


async def test_what_is_no_v1_costs_no_more_system_calls_than_without_bitcoin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch)
    assert await reads(calls, everywhere=True) == await reads(calls, everywhere=False)


async def test_a_client_that_ends_without_a_word_is_answered() -> None:
    peers = Peers(b"all there is")
    async with world(peers) as (_, front):
        reader, writer = await ask(front, REQUEST)
        writer.write_eof()
        assert await reader.read() == b"all there is"
        await leave(writer)


async def test_with_bitcoin_off_nothing_is_looked_at() -> None:
    peers = Peers()
    async with world(peers, everywhere=False) as (_, front):
        _, writer = await ask(front, REQUEST)
        writer.write(VERSION)
        await until(lambda: peers.heard == [VERSION])
        await leave(writer)


async def test_a_client_that_leaves_ends_what_was_dialled_for_it() -> None:
    async with world(Peers()) as (port, front):
        _, writer = await ask(front, REQUEST)
        writer.write(VERSION)
        writer.transport.abort()
        await until(lambda: not front.connections and not port.open)
