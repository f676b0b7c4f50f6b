from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import time
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isoproxy.errors import DialError
from isoproxy.namecoin.electrum.pins import Pin, PinStore
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.namecoin.electrum.tls import (
    CertificateFault,
    CertificateProblem,
    CertificateRefused,
    NotVouchedFor,
    TlsPolicy,
    ssl_context,
)
from tests.kit.electrumx import VALID, Validity, self_signed
from tests.kit.garbage import no_collector

ONION = f"{'a' * 56}.onion"


@contextlib.asynccontextmanager
async def tls_server(directory: Path, valid: Validity = VALID) -> AsyncIterator[tuple[int, bytes]]:
    """A server with a self-signed certificate: its port and fingerprint."""
    certificate, key, fingerprint = self_signed(directory, valid=valid)
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


def kept(directory: Path, server: NameServer) -> bytes | None:
    """The fingerprint that the file in `directory` has of `server`."""
    pin = PinStore(directory).get(server)
    return None if pin is None else pin.digest


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
    """With each of its bytes."""
    async with tls_server(tmp_path) as (port, fingerprint):
        policy = TlsPolicy(PinStore())
        right = parse_server(f"names.example:1:s:{fingerprint.hex()}")
        assert await exchange(policy, right, port) == b"hello"
        first, last = bytes([fingerprint[0] ^ 1]), bytes([fingerprint[-1] ^ 1])
        for wrong in (first + fingerprint[1:], fingerprint[:-1] + last):
            with pytest.raises(CertificateRefused) as caught:
                await exchange(policy, parse_server(f"names.example:1:s:{wrong.hex()}"), port)
            assert not isinstance(caught.value, NotVouchedFor)


async def test_an_onion_service_needs_no_certificate_but_a_pin_holds(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (port, _):
        policy = TlsPolicy(PinStore())
        assert await exchange(policy, parse_server(f"{ONION}:1:s"), port) == b"hello"
        with pytest.raises(CertificateRefused):
            await exchange(policy, parse_server(f"{ONION}:1:s:{'00' * 32}"), port)


async def test_of_a_certificate_that_is_known_every_byte_counts(tmp_path: Path) -> None:
    server, pins = parse_server("names.example:1:s"), PinStore()
    async with tls_server(tmp_path) as (port, fingerprint):
        pins.remember(server, Pin(fingerprint, time.time() + 1000))
        assert await exchange(TlsPolicy(pins), server, port) == b"hello"
        pins.remember(
            server, Pin(fingerprint[:-1] + bytes([fingerprint[-1] ^ 1]), time.time() + 1000)
        )
        with pytest.raises(CertificateRefused):
            await exchange(TlsPolicy(pins), server, port)


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
        assert kept(tmp_path, server) == fingerprint
        later = TlsPolicy(PinStore(tmp_path))
        assert await exchange(later, server, port) == b"hello"
        for _ in range(2):
            with pytest.raises(NotVouchedFor):  # an authority may vouch for it
                await exchange(later, server, other_port)
            with pytest.raises(CertificateRefused) as caught:
                await exchange(later, server, other_port)
            assert not isinstance(caught.value, NotVouchedFor)
        assert kept(tmp_path, server) == fingerprint


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
        assert kept(tmp_path, server) == fingerprint


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


IN_TWENTY_DAYS: float = time.time() + 20 * 86_400
"""When the certificates of `tls_server` have expired."""


async def test_a_certificate_that_has_expired_gives_way_as_at_the_first_contact(
    tmp_path: Path,
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    server = parse_server("names.example:1:s")
    async with (
        tls_server(tmp_path / "old") as (port, old),
        tls_server(tmp_path / "new") as (new_port, new),
    ):
        first = TlsPolicy(PinStore(tmp_path))
        for _ in range(2):
            with pytest.raises(NotVouchedFor):
                await exchange(first, server, port)
        assert await exchange(first, server, port) == b"hello"
        policy = TlsPolicy(PinStore(tmp_path), clock=lambda: IN_TWENTY_DAYS)
        assert await exchange(policy, server, port) == b"hello"  # still its own
        for _ in range(2):
            with pytest.raises(NotVouchedFor):
                await exchange(policy, server, new_port)
            assert kept(tmp_path, server) == old
        assert await exchange(policy, server, new_port) == b"hello"
        assert kept(tmp_path, server) == new
        assert policy.problems == {}


@dataclass(frozen=True)
class Moving:
    policy: TlsPolicy
    server: NameServer
    own_port: int
    vouched_port: int
    vouched: bytes


@contextlib.asynccontextmanager
async def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Moving]:
    """A server with a pin, what it shows since then, and what an authority vouches for."""
    for name in ("own", "vouched"):
        (tmp_path / name).mkdir()
    server = parse_server("localhost:1:s")
    async with (
        tls_server(tmp_path / "own") as (own_port, own),
        tls_server(tmp_path / "vouched") as (vouched_port, vouched),
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "vouched" / "cert.pem"))
        pins = PinStore(tmp_path)
        pins.remember(server, Pin(own, IN_TWENTY_DAYS))
        yield Moving(TlsPolicy(pins), server, own_port, vouched_port, vouched)


async def test_an_authority_replaces_a_certificate_of_its_own_where_two_circuits_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with moved(tmp_path, monkeypatch) as moving:
        policy, server = moving.policy, moving.server
        with pytest.raises(NotVouchedFor):
            await exchange(policy, server, moving.vouched_port)
        assert not PinStore(tmp_path).is_vouched_for(server)
        assert await exchange(policy, server, moving.vouched_port) == b"hello"
        assert PinStore(tmp_path).is_vouched_for(server)
        with pytest.raises(CertificateRefused) as caught:
            await exchange(policy, server, moving.own_port)
        assert not isinstance(caught.value, NotVouchedFor)


async def test_one_circuit_does_not_make_an_authority_replace_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with moved(tmp_path, monkeypatch) as moving:
        policy, server = moving.policy, moving.server
        for _ in range(2):
            with pytest.raises(NotVouchedFor):
                await exchange(policy, server, moving.vouched_port)
            with pytest.raises(CertificateRefused) as caught:
                await exchange(policy, server, moving.own_port)
            assert not isinstance(caught.value, NotVouchedFor)
            changed = CertificateProblem(CertificateFault.CHANGED, moving.vouched)
            assert policy.problems == {server.label: changed}
            assert await exchange(policy, server, moving.own_port) == b"hello"
            assert policy.problems == {}
        assert not PinStore(tmp_path).is_vouched_for(server)


async def test_two_circuits_that_show_two_certificates_replace_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another").mkdir()
    async with (
        moved(tmp_path, monkeypatch) as moving,
        tls_server(tmp_path / "another") as (another_port, _),
    ):
        policy, server = moving.policy, moving.server
        for port in (another_port, moving.vouched_port):
            with contextlib.suppress(NotVouchedFor):
                await exchange(policy, server, port)
        assert not PinStore(tmp_path).is_vouched_for(server)
        assert await exchange(policy, server, moving.vouched_port) == b"hello"


async def test_what_is_wrong_with_a_certificate_is_there_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with moved(tmp_path, monkeypatch) as moving:
        policy = moving.policy
        listed = parse_server(f"localhost:2:s:{'00' * 32}")
        with pytest.raises(CertificateRefused):
            await exchange(policy, listed, moving.vouched_port)
        fault = CertificateFault.NOT_THE_LISTED
        assert policy.problems == {listed.label: CertificateProblem(fault, moving.vouched)}
        vouched = parse_server("localhost:3:s")
        assert await exchange(policy, vouched, moving.vouched_port) == b"hello"
        for _ in range(3):
            with pytest.raises(CertificateRefused):
                await exchange(policy, vouched, moving.own_port)
        lost = CertificateProblem(CertificateFault.NOT_VOUCHED_FOR)
        assert policy.problems[vouched.label] == lost
        told = [one for one in caplog.records if one.getMessage() == "certificate_refused"]
        assert len(told) == 2  # once for each server, however often it is tried
        assert "localhost" not in caplog.text


async def test_an_authoritys_certificate_that_has_lapsed_is_told_from_an_interception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pins = parse_server("localhost:1:s"), PinStore()
    pins.remember_authority(server)
    days = datetime.timedelta(days=-30), datetime.timedelta(days=-1)
    async with tls_server(tmp_path, days) as (port, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        policy = TlsPolicy(pins)
        with pytest.raises(CertificateRefused):
            await exchange(policy, server, port)
    assert policy.problems == {server.label: CertificateProblem(CertificateFault.EXPIRED)}
