from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoproxy.errors import DialError
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.namecoin.electrum.tls import (
    CertificateRefused,
    NotVouchedFor,
    PinStore,
    TlsPolicy,
    ssl_context,
)
from tests.kit.electrumx import self_signed
from tests.kit.garbage import no_collector

ONION = f"{'a' * 56}.onion"


@contextlib.asynccontextmanager
async def tls_server(directory: Path) -> AsyncIterator[tuple[int, bytes]]:
    """A server with a self-signed certificate: its port and fingerprint."""
    certificate, key, fingerprint = self_signed(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(await reader.read(100))
            await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], fingerprint
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


async def connected(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def exchange(policy: TlsPolicy, server: NameServer, port: int) -> bytes:
    """What the server echoes over the stream that the policy allows."""
    reader, writer = await policy.open(await connected(port), server)
    writer.write(b"hello")
    try:
        return await reader.readexactly(5)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_connection_sets_little_memory_aside_and_no_session_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key keeps its connections for a quarter of an hour, and there are many keys."""
    made: list[SSLProtocol] = []
    construct = SSLProtocol.__init__

    def noting(self: SSLProtocol, *args: Any, **named: Any) -> None:
        construct(self, *args, **named)
        if named.get("server_hostname"):
            made.append(self)

    monkeypatch.setattr(SSLProtocol, "__init__", noting)
    async with tls_server(tmp_path) as (port, _):
        policy = TlsPolicy(PinStore())
        for _ in range(2):
            sock = await connected(port)
            _, writer = await policy.open(sock, parse_server(f"{ONION}:1:s"))
            assert not writer.get_extra_info("ssl_object").session_reused
            writer.transport.abort()
            await asyncio.sleep(0)
    assert [len(protocol.get_buffer(-1)) <= 1 << 14 for protocol in made] == [True, True]


async def test_an_ended_connection_is_gone_without_the_garbage_collector(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (port, _):
        policy, sock = TlsPolicy(PinStore()), await connected(port)
        with no_collector():
            reader, writer = await policy.open(sock, parse_server(f"{ONION}:1:s"))
            gone = weakref.ref(reader)
            writer.transport.abort()
            del reader, writer
            await asyncio.sleep(0.01)
            assert gone() is None


async def test_a_pin_decides_alone(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (port, fingerprint):
        policy = TlsPolicy(PinStore())
        right = parse_server(f"names.example:1:s:{fingerprint.hex()}")
        wrong = parse_server(f"names.example:1:s:{'00' * 32}")
        assert await exchange(policy, right, port) == b"hello"
        with pytest.raises(CertificateRefused) as caught:
            await exchange(policy, wrong, port)
        assert not isinstance(caught.value, NotVouchedFor)


async def test_an_onion_service_needs_no_certificate_but_a_pin_holds(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (port, _):
        policy = TlsPolicy(PinStore())
        assert await exchange(policy, parse_server(f"{ONION}:1:s"), port) == b"hello"
        with pytest.raises(CertificateRefused):
            await exchange(policy, parse_server(f"{ONION}:1:s:{'00' * 32}"), port)


async def test_without_an_authority_the_certificate_shown_first_is_kept(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    server = parse_server("names.example:1:s")
    async with (
        tls_server(tmp_path / "one") as (port, fingerprint),
        tls_server(tmp_path / "two") as (other_port, _),
    ):
        policy = TlsPolicy(PinStore(tmp_path))
        for _ in range(2):
            with pytest.raises(NotVouchedFor):
                await exchange(policy, server, port)
        assert PinStore(tmp_path).get(server) is None
        assert await exchange(policy, server, port) == b"hello"
        assert PinStore(tmp_path).get(server) == fingerprint
        later = TlsPolicy(PinStore(tmp_path))
        assert await exchange(later, server, port) == b"hello"
        with pytest.raises(CertificateRefused) as caught:
            await exchange(later, server, other_port)
        assert not isinstance(caught.value, NotVouchedFor)


async def test_at_first_contact_one_exit_in_between_cannot_make_its_certificate_the_servers(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "exit").mkdir()
    server = parse_server("names.example:1:s")
    async with (
        tls_server(tmp_path / "one") as (port, fingerprint),
        tls_server(tmp_path / "exit") as (port_in_between, _),
    ):
        pins = PinStore(tmp_path)
        policy = TlsPolicy(pins)
        for way in (port, port_in_between, port, port_in_between, port):
            with pytest.raises(NotVouchedFor):
                await exchange(policy, server, way)
            assert pins.get(server) is None
        assert await exchange(policy, server, port) == b"hello"
        assert pins.get(server) == fingerprint


async def test_whom_an_authority_vouched_for_once_nobody_can_pose_as_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exit in between with a certificate of its own is refused, and not kept."""
    (tmp_path / "vouched").mkdir()
    (tmp_path / "exit").mkdir()
    server = parse_server("localhost:1:s")
    async with (
        tls_server(tmp_path / "vouched") as (port, _),
        tls_server(tmp_path / "exit") as (port_in_between, _),
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "vouched" / "cert.pem"))
        for policy in (TlsPolicy(PinStore(tmp_path)), TlsPolicy(PinStore(tmp_path))):
            assert await exchange(policy, server, port) == b"hello"
            for _ in range(2):
                with pytest.raises(CertificateRefused) as caught:
                    await exchange(policy, server, port_in_between)
                assert not isinstance(caught.value, NotVouchedFor)
            assert await exchange(policy, server, port) == b"hello"
        with pytest.raises(CertificateRefused):
            await exchange(TlsPolicy(PinStore(tmp_path)), server, port_in_between)


async def test_first_connections_side_by_side_may_all_try_again(tmp_path: Path) -> None:
    """Whichever of them learns the pin, none of the others takes that for a refusal."""
    server = parse_server("names.example:1:s")
    async with tls_server(tmp_path) as (port, _):
        policy = TlsPolicy(PinStore())

        async def first_contact() -> bytes:
            for _ in range(2):
                with contextlib.suppress(NotVouchedFor):
                    return await exchange(policy, server, port)
            return await exchange(policy, server, port)

        answers = await asyncio.gather(*(first_contact() for _ in range(8)))
        assert answers == [b"hello"] * 8


async def test_plain_tcp_is_passed_on_as_it_is() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        writer.transport.abort()

    listener = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        policy = TlsPolicy(PinStore())
        assert await exchange(policy, parse_server(f"{ONION}:1:t"), port) == b"hello"


async def test_a_server_that_speaks_no_tls_is_refused() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 this is something else\r\n")
        await writer.drain()
        writer.transport.abort()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(DialError):
            await exchange(TlsPolicy(PinStore()), parse_server(f"{ONION}:1:s"), port)


@pytest.mark.parametrize("content", ["", "[]", '{"a:1":"zz"}', "nonsense"])
def test_an_unreadable_pin_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "name-server-pins.json").write_text(content)
    server = parse_server("names.example:1:s")
    pins = PinStore(tmp_path)
    assert pins.get(server) is None
    pins.remember(server, b"\x01" * 32)
    assert PinStore(tmp_path).get(server) == b"\x01" * 32
    assert (tmp_path / "name-server-pins.json").stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_cannot_be_stored_is_remembered_all_the_same(tmp_path: Path) -> None:
    server, pins = parse_server("a.test:1:s"), PinStore(tmp_path / "gone")
    pins.remember(server, b"\xab" * 32)
    assert pins.get(server) == b"\xab" * 32


async def test_an_authority_vouches_for_a_name_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else anybody with some certificate of an authority could be any server to an exit."""
    async with tls_server(tmp_path) as (port, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        pins = PinStore()
        policy = TlsPolicy(pins)
        assert await exchange(policy, parse_server("localhost:1:s"), port) == b"hello"
        other = parse_server("names.example:1:s")
        with pytest.raises(NotVouchedFor):
            await exchange(policy, other, port)
        assert not pins.is_vouched_for(other)


@pytest.mark.parametrize("authorities", [False, True])
def test_tls_of_before_1_2_is_not_spoken(authorities: bool) -> None:
    context = ssl_context(authorities=authorities)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_file_of_pins_is_closed_to_others(tmp_path: Path) -> None:
    """It tells which name servers somebody uses."""
    before = os.umask(0)
    try:
        PinStore(tmp_path).remember(parse_server("names.example:1:s"), bytes(32))
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_every_client_hello_is_alike_and_resumes_nothing(tmp_path: Path) -> None:
    """But for what is random in it; else a server could tell whose connections are whose."""
    hellos = []
    for context in (ssl_context(authorities=False), ssl_context(authorities=True)) * 2:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="names.example")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hellos.append(outgoing.read())
    assert len({without_random(hello) for hello in hellos}) == 1
    assert b"http" not in hellos[0]


def without_random(hello: bytes) -> bytes:
    """A ClientHello (RFC 8446, 4.1.2) without random, session ID and key share."""
    session = 43 + 1 + hello[43]
    share = hello.index(b"\x00\x33", session)
    length = int.from_bytes(hello[share + 2 : share + 4])
    return hello[:11] + hello[session : share + 4] + hello[share + 4 + length :]
