"""Two ends over a pair of sockets: what is said arrives, and how it ends is told apart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from isoproxy.tls.ends import PIECE, PlainEnd, TlsEnd
from tests.unit.tls.shaking import client_context, server_context
from tests.unit.tls.sites import party

HOST = "name.bit"


@contextlib.asynccontextmanager
async def sockets() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        for sock in one, other:
            sock.setblocking(False)
        yield one, other


@contextlib.asynccontextmanager
async def ends() -> AsyncIterator[tuple[TlsEnd, TlsEnd]]:
    """A client and a server, which have shaken hands."""
    async with sockets() as (one, other):
        server = TlsEnd(other, server_context(party(HOST, hosts=(HOST,)).pem), server_side=True)
        client = TlsEnd(one, client_context(), host=HOST)
        async with asyncio.timeout(20):
            await asyncio.gather(client.handshake(), server.handshake())
        yield client, server


async def test_what_is_said_arrives_in_both_directions_at_once() -> None:
    async with ends() as (client, server):
        data = bytes(range(256)) * 4096

        async def hear(end: TlsEnd) -> bytes:
            heard = bytearray()
            while len(heard) < len(data):
                piece = await end.read()
                assert 0 < len(piece) <= PIECE
                heard += piece
            return bytes(heard)

        async def say(end: TlsEnd) -> None:
            for at in range(0, len(data), PIECE):
                await end.write(data[at : at + PIECE])

        async with asyncio.timeout(30):
            up, down, *_ = await asyncio.gather(
                hear(server), hear(client), say(client), say(server)
            )
        assert up == down == data


async def test_a_proper_end_is_one_and_the_other_direction_goes_on() -> None:
    async with ends() as (client, server):
        await client.end(is_cut=False)
        assert await server.read() == b""
        assert not server.is_cut
        await server.write(b"still here")
        assert await client.read() == b"still here"


async def test_an_end_without_a_word_is_a_cut_and_passed_on_as_one() -> None:
    async with ends() as (client, server):
        await server.end(is_cut=True)
        assert await client.read() == b""
        assert client.is_cut


async def test_a_handshake_that_fails_tells_the_other_side() -> None:
    async with sockets() as (one, other):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which believes nobody
        server = TlsEnd(other, server_context(party(HOST, hosts=(HOST,)).pem), server_side=True)
        client = TlsEnd(one, context, host=HOST)
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(
                client.handshake(), server.handshake(), return_exceptions=True
            )
        assert isinstance(outcomes[0], ssl.SSLCertVerificationError)
        assert isinstance(outcomes[1], ssl.SSLError)
        assert "ALERT" in str(outcomes[1])


async def test_that_nothing_was_heard_is_known() -> None:
    async with sockets() as (one, other):
        other.close()
        client = TlsEnd(one, client_context(), host=HOST)
        with pytest.raises((ssl.SSLEOFError, ConnectionError)):
            await client.handshake()
        assert not client.has_heard


async def test_bytes_that_were_read_before_begin_the_handshake() -> None:
    async with sockets() as (one, other):
        client = TlsEnd(one, client_context(), host=HOST)
        shaking = asyncio.create_task(client.handshake())
        loop = asyncio.get_running_loop()
        first = await loop.sock_recv(other, 10)
        context = server_context(party(HOST, hosts=(HOST,)).pem)
        server = TlsEnd(other, context, server_side=True, received=first)
        async with asyncio.timeout(20):
            await server.handshake()
            await shaking
        assert server.has_heard


async def test_a_plain_end_says_and_hears_bytes() -> None:
    async with sockets() as (one, other):
        here, there = PlainEnd(one), PlainEnd(other)
        await here.write(b"hello")
        assert await there.read() == b"hello"
        await here.end(is_cut=False)
        assert await there.read() == b""
        assert not there.is_cut
