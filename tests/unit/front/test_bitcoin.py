"""Which streams are carried as v2, and that a second one has nowhere else to come from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from isoproxy.bitcoin.carry import Carrier, CarrySettings
from isoproxy.bitcoin.flow import ClosedBy, Flow
from isoproxy.bitcoin.flows import FlowRegistry, Outcome
from isoproxy.bitcoin.known_peers import PeerMemory
from isoproxy.bitcoin.options import Deadlines, Fallback
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.services import Names
from isoproxy.front.timed_relay import relay_stream
from isoproxy.isolation import (
    APP,
    P2P,
    IsolationKey,
    Isolator,
    ListenerRule,
    own_group,
    upstream_credentials,
)
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.socks import Request, Server
from isoproxy.socks.wire import encode_address
from isoproxy.tor.dialer import Dialer, DialerSettings
from tests.kit.socks_port import SocksPort, echo
from tests.kit.waiting import until

PORT = 18444
REQUEST = b"\x05\x01\x00\x05\x01\x00\x03\x06a.test" + PORT.to_bytes(2, "big")
OK = b"\x05\x00" + bytes.fromhex("05000001000000000000")
ONION = "b" * 56 + ".onion"
PAYLOAD = bytes(80) + b"\x00" + bytes(5)
VERSION = (
    bytes.fromhex("fabfb5da")
    + b"version\x00\x00\x00\x00\x00"
    + len(PAYLOAD).to_bytes(4, "little")
    + hashlib.sha256(hashlib.sha256(PAYLOAD).digest()).digest()[:4]
    + PAYLOAD
)


@asynccontextmanager
async def front_end(
    port: SocksPort,
    fallback: Fallback,
    names: Names | None = None,
    *,
    ports: frozenset[int] = frozenset({PORT}),
    everywhere: bool = True,
) -> AsyncIterator[FrontEnd]:
    front: FrontEnd

    def defect(handler: Handler, error: Exception) -> None:
        front.internal_error(handler, error)

    reactor = Reactor(asyncio.get_running_loop(), defect)
    isolator = Isolator()
    dialer = Dialer(reactor, isolator, DialerSettings(port.endpoint, timeout_s=5))
    deadlines = Deadlines(first_byte=1, handshake=1)
    settings = CarrySettings(fallback, deadlines=deadlines, ports=ports, everywhere=everywhere)

    async def relay(
        client: socket.socket, peer: socket.socket, first: bytes, flow: Flow
    ) -> ClosedBy:
        return await relay_stream(front.services, client, peer, first, flow.relayed)

    registry = FlowRegistry()
    carrier = Carrier(dialer, relay, registry, PeerMemory(time.monotonic), settings)
    front = FrontEnd(reactor, isolator, dialer, names=names, bitcoin=carrier)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = Endpoint.tcp(*free.getsockname())
    rule = HandshakeRule(ListenerRule(own_group("t")), top_levels=TopLevels())
    front.open(ListenerSettings("test", endpoint, rule))
    try:
        yield front
        assert front.counters.defects == 0
    finally:
        await front.drain(0)
        dialer.close()
        assert (len(front.connections), len(front.services.tasks), len(reactor)) == (0, 0, 0)
        assert not registry.flows
        reactor.close()


async def ask(front: FrontEnd, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    endpoint = front.listeners["test"].settings.endpoint
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(data)
    assert await reader.readexactly(len(OK)) == OK
    return reader, writer


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_what_is_not_v1_passes_untouched_on_circuits_of_its_own() -> None:
    async with SocksPort() as port, front_end(port, Fallback.NEVER) as front:
        for said in (b"SSH-2.0-client\r\n", b"\x0b\x12" + b"x" * 20):
            reader, writer = await ask(front, REQUEST + said)
            assert await reader.readexactly(len(said)) == said
            writer.write_eof()
            assert await reader.read() == b""
            await leave(writer)
        assert len({request.password for request in port.requests}) == 1


async def test_the_streams_purpose_is_p2p_and_not_the_applications() -> None:
    async with SocksPort() as port, front_end(port, Fallback.NEVER) as front:
        _, writer = await ask(front, REQUEST + b"not bitcoin")
        (connection,) = front.connections
        assert connection.request is not None
        key = connection.request.key
        assert port.requests[0].password == upstream_credentials(key, P2P).password
        assert port.requests[0].password != upstream_credentials(key, APP).password
        await leave(writer)


async def test_silence_is_relayed_after_a_moment() -> None:
    async def speaks_first(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed() + b"220 hello\r\n")
        await reader.read()

    async with SocksPort(speaks_first) as port, front_end(port, Fallback.NEVER) as front:
        reader, writer = await ask(front, REQUEST)
        assert await asyncio.wait_for(reader.readline(), 5) == b"220 hello\r\n"
        await leave(writer)


@pytest.mark.parametrize("hesitation", [0, 0.5])
async def test_v1_never_leaves_in_plaintext(hesitation: float) -> None:
    received: list[bytes] = []

    async def v1_only(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        received.append(server.leftover + await reader.read(24))

    async with SocksPort(v1_only) as port, front_end(port, Fallback.NEVER) as front:
        reader, writer = await ask(front, REQUEST + (b"" if hesitation else VERSION))
        if hesitation:
            await asyncio.sleep(hesitation)  # longer than the silence that is waited for
            writer.write(VERSION)
        assert await reader.read() == b""
        await leave(writer)
        assert len(received) == 1
        assert b"version" not in received[0]
        assert VERSION[:4] not in received[0]


@pytest.mark.parametrize("hesitation", [0, 0.5])
@pytest.mark.parametrize("piece", [1, 4, 16, len(VERSION)])
async def test_v1_of_an_unknown_network_never_leaves_either(hesitation: float, piece: int) -> None:
    received: list[bytes] = []
    hello = b"\x01\x02\x03\x04" + VERSION[4:]

    async def listens(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        received.append(server.leftover + await reader.read())

    async with SocksPort(listens) as port, front_end(port, Fallback.NEVER) as front:
        reader, writer = await ask(front, REQUEST)
        await asyncio.sleep(hesitation)
        for start in range(0, len(hello), piece):
            writer.write(hello[start : start + piece])
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError, TimeoutError):
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        await until(lambda: bool(received))
        assert received == [b""]
        carrier = front.services.bitcoin
        assert isinstance(carrier, Carrier)
        await until(lambda: carrier.registry.totals().outcomes == {Outcome.REFUSED: 1})


@pytest.mark.parametrize(("size", "left"), [(4, 4), (5, 0), (11, 0), (15, 0)])
async def test_a_header_that_is_broken_off_leaves_no_more_than_a_magic(
    size: int, left: int
) -> None:
    received: list[bytes] = []
    hello = b"\x01\x02\x03\x04" + VERSION[4:size]

    async def listens(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        received.append(server.leftover + await reader.read())

    async with SocksPort(listens) as port, front_end(port, Fallback.NEVER) as front:
        reader, writer = await ask(front, REQUEST + hello)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await until(lambda: bool(received))
        assert received == [hello[:left]]


async def test_v1_of_an_unknown_network_passes_where_plaintext_may() -> None:
    hello = b"\x01\x02\x03\x04" + VERSION[4:]
    async with SocksPort() as port, front_end(port, Fallback.ONION_ONLY) as front:
        reader, writer = await ask(front, REQUEST + hello)
        assert await reader.readexactly(len(hello)) == hello
        await leave(writer)


async def test_no_v1_reaches_a_peer_that_spoke_first() -> None:
    received: list[bytes] = []

    async def speaks_first(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed() + b"x")
        received.append(server.leftover + await reader.read())

    async with SocksPort(speaks_first) as port, front_end(port, Fallback.ALWAYS) as front:
        reader, writer = await ask(front, REQUEST)
        assert await reader.readexactly(1) == b"x"
        writer.write(VERSION)
        assert await reader.read() == b""
        await leave(writer)
        await until(lambda: received == [b""])


async def test_a_fallback_is_a_second_stream_with_the_same_credentials() -> None:
    heard: list[bytes] = []

    async def v1_only(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        first = await reader.readexactly(24)
        heard.append(first)
        if first[4:11] == b"version":
            await echo_rest(reader, writer)

    async def echo_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)

    async with SocksPort(v1_only) as port, front_end(port, Fallback.ALWAYS) as front:
        reader, writer = await ask(front, REQUEST + VERSION)
        assert await asyncio.wait_for(reader.readexactly(len(PAYLOAD)), 5) == PAYLOAD
        assert len(port.requests) == 2
        first, second = port.requests
        assert (first.username, first.password) == (second.username, second.password)
        assert (first.host, first.port) == (second.host, second.port)
        assert heard[1] == VERSION[:24]
        await leave(writer)


class Table:
    """Every name is that of one onion service."""

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        return Target.parse(ONION, target.port)


@pytest.mark.parametrize("fallback", [Fallback.NEVER, Fallback.ONION_ONLY])
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"a.test", "a.test"),
        (ONION.encode(), ONION),
        (b"peer.bit", ONION),
        ("9.9.9.9", "9.9.9.9"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
async def test_whatever_the_destination_v2_is_spoken_there_and_v1_only_to_an_onion(
    asked: bytes | str, told: str, fallback: Fallback
) -> None:
    heard: list[bytes] = []

    async def closes(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        heard.append(server.leftover + await reader.readexactly(24))

    async with SocksPort(closes) as port, front_end(port, fallback, Table()) as front:
        request = b"\x05\x01\x00\x05\x01\x00" + encode_address(asked, PORT)
        reader, writer = await ask(front, request + VERSION)
        assert await reader.read() == b""
        await leave(writer)
        assert {request.host for request in port.requests} == {told.encode()}
        falls_back = told == ONION and fallback is Fallback.ONION_ONLY
        assert [first[4:11] == b"version" for first in heard] == [False, True][: 1 + falls_back]


async def test_a_client_that_leaves_ends_its_flow() -> None:
    async with SocksPort(echo) as port, front_end(port, Fallback.NEVER) as front:
        _, writer = await ask(front, REQUEST)
        assert len(front.services.tasks) == 1
        writer.transport.abort()
        await asyncio.sleep(0.5)
        assert (len(front.connections), len(front.services.tasks), port.open) == (0, 0, 0)
