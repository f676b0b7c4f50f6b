"""The Python client, against a SocksPort that records what it is asked."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

import isoproxy
from isoproxy.client import create_connection
from isoproxy.errors import ConfigError, DialError, ErrorKind
from isoproxy.net.target import Target
from isoproxy.socks import Request, Server
from tests.kit.socks_port import SocksPort, refusing, silent

connect = isoproxy.connect
REFUSED = b"\x05\x04\x00\x01" + bytes(6)


async def connect_blocking(target: str, **options: Any) -> socket.socket:
    return await asyncio.to_thread(create_connection, target, **options)


async def exchange(port: SocksPort, target: str, isolation: str | None) -> bytes:
    reader, writer = await isoproxy.connect(target, isolation=isolation, proxy=port.endpoint)
    writer.write(b"hello")
    data = await reader.readexactly(5)
    writer.close()
    await writer.wait_closed()
    return data


def exchange_blocking(port: SocksPort, target: str, isolation: str | None) -> bytes:
    with isoproxy.create_connection(
        target, isolation=isolation, proxy=str(port.endpoint), timeout=10
    ) as sock:
        assert type(sock) is socket.socket
        assert sock.gettimeout() == 10
        sock.sendall(b"hello")
        data = b""
        while len(data) < 5:
            data += sock.recv(5)
        return data


async def test_both_twins_ask_for_the_same(short_path: Path) -> None:
    async with SocksPort() as port:
        for target in ("Example.bit:80", "/ip4/192.0.2.1/tcp/80", "[2001:db8::1]:80"):
            assert await exchange(port, target, "alice 1") == b"hello"
            assert await asyncio.to_thread(exchange_blocking, port, target, "alice 1") == b"hello"
            one, two = port.requests[-2:]
            assert (one.host, one.port) == (two.host, two.port)
            assert one.username == two.username == b"alice 1"
            assert one.password == two.password == b"isoproxy"


async def test_a_unix_listener(short_path: Path) -> None:
    async with SocksPort(path=short_path / "socks") as port:
        assert await exchange(port, "example.com:80", "a") == b"hello"
        assert await asyncio.to_thread(exchange_blocking, port, "example.com:80", "a") == b"hello"


async def test_without_an_id_no_two_streams_share() -> None:
    async with SocksPort() as port:
        for _ in range(2):
            await exchange(port, "example.com:80", None)
            await asyncio.to_thread(exchange_blocking, port, "example.com:80", None)
        assert len({request.username for request in port.requests}) == 4


async def test_refusals_keep_their_reason() -> None:
    async with SocksPort(refusing(REFUSED)) as port:
        with pytest.raises(DialError) as refused:
            await isoproxy.connect("example.com:80", proxy=port.endpoint)
        assert refused.value.kind is ErrorKind.HOST_UNREACHABLE
        with pytest.raises(DialError) as refused:
            await asyncio.to_thread(create_connection, "example.com:80", proxy=port.endpoint)
        assert refused.value.kind is ErrorKind.HOST_UNREACHABLE
    async with SocksPort(refusing(b"\x05\xf0\x00\x01" + bytes(6))) as port:
        with pytest.raises(DialError) as refused:
            await asyncio.to_thread(create_connection, "example.com:80", proxy=port.endpoint)
        assert refused.value.kind is ErrorKind.ONION_NOT_FOUND


async def test_silence_ends() -> None:
    async with SocksPort(silent) as port:
        with pytest.raises(DialError) as late:
            await isoproxy.connect("example.com:80", proxy=port.endpoint, timeout=0.2)
        assert late.value.kind is ErrorKind.DIAL_TIMEOUT
        with pytest.raises(DialError) as late:
            await asyncio.to_thread(
                create_connection, "example.com:80", proxy=port.endpoint, timeout=0.2
            )
        assert late.value.kind is ErrorKind.DIAL_TIMEOUT


@pytest.mark.parametrize(
    "beginning", [b"", b"\x05", b"HTTP/1.1 400\r\n\r\n", b"\x05\xff", b"\x05\0"]
)
async def test_what_is_no_isoproxy(beginning: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with pytest.raises(DialError):
            await isoproxy.connect("example.com:80", proxy=proxy, timeout=5)


async def test_a_proxy_that_takes_no_user_name_hears_no_target() -> None:
    heard = []
    ended = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"\x05\x00")
        heard.append(await reader.read(100))
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        writer.close()
        ended.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        for dial in (connect, connect_blocking):
            with pytest.raises(DialError):
                await dial("example.com:80", isolation="a", proxy=proxy, timeout=5)
            await ended.acquire()
    assert heard == [b"", b""]


@pytest.mark.parametrize("timeout", [0.5, 0.0, -1.0])
async def test_the_time_is_for_the_whole_of_it(timeout: float) -> None:
    async def slowly(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        for byte in b"\x05\x00\x00\x01" + bytes(6):
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.3)

    async with SocksPort(slowly) as port:
        for dial in (connect, connect_blocking):
            began = time.monotonic()
            with pytest.raises(DialError) as late:
                await dial("example.com:80", proxy=port.endpoint, timeout=timeout)
            assert late.value.kind is ErrorKind.DIAL_TIMEOUT
            assert time.monotonic() - began < 1.0


async def test_nobody_listens() -> None:
    with pytest.raises(DialError, match="isoproxy run"):
        await isoproxy.connect("example.com:80", proxy="127.0.0.1:1")
    with pytest.raises(DialError, match="isoproxy run"):
        create_connection("example.com:80", proxy="127.0.0.1:1")


@pytest.mark.parametrize("isolation", ["", " a", "ä", "a\n", "x" * 128])
async def test_isolation_ids_that_some_client_could_not_send(isolation: str) -> None:
    with pytest.raises(ConfigError, match="127 printable"):
        await isoproxy.connect("example.com:80", isolation=isolation)
    with pytest.raises(ConfigError, match="127 printable"):
        create_connection("example.com:80", isolation=isolation)


async def test_arguments_are_checked_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError):
        await isoproxy.connect("no port", proxy="127.0.0.1:1")
    with pytest.raises(ConfigError, match="no way but"):
        await isoproxy.connect(Target.parse("example.com", 80), proxy="none")
    with pytest.raises(ConfigError, match="IP address"):
        create_connection("example.com:80", proxy="localhost:9250")
    for timeout in (float("nan"), float("inf"), 1e300):
        for dial in (connect, connect_blocking):
            with pytest.raises(ConfigError, match="seconds"):
                await dial("example.com:80", timeout=timeout)


def test_the_package_offers_the_client_and_nothing_else() -> None:
    assert isoproxy.create_connection is create_connection
    with pytest.raises(AttributeError, match="no attribute 'dial'"):
        isoproxy.dial  # noqa: B018 -- reading it is the test
