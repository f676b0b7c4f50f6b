"""Redirected clients: where they go, under whose key; the kernel's part is played by the test."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from isoproxy.errors import ErrorKind, PolicyRefusal
from isoproxy.front import transparent
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.transparent import Destination, Program, Silent, target_of, tuple_of
from isoproxy.isolation import (
    APP,
    ClientProtocol,
    Isolate,
    ListenerRule,
    client_of_address,
    own_group,
    upstream_credentials,
)
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.transparent.virtual_addresses import ClientMaps
from tests.kit.socks_port import SocksPort, refusing
from tests.unit.front.test_frontend import front_end

LOCAL = client_of_address("127.0.0.1")
FLAGS = Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH
RULE = HandshakeRule(ListenerRule(own_group("redirected"), FLAGS), top_levels=TopLevels())
SETTINGS = ListenerSettings("redirected", Endpoint("127.0.0.1"), RULE)


def nothing(address: IPv4Address | IPv6Address) -> None:
    return None


def test_an_address_is_dialled_as_it_is_and_a_virtual_one_never() -> None:
    assert target_of((ip_address("9.9.9.9"), 443), nothing) == Target.parse("9.9.9.9", 443)
    virtual = ip_address("10.192.1.0"), 80
    assert target_of(virtual, lambda at: "name.example") == Target.parse("name.example", 80)
    for text in ("10.192.1.0", "10.255.255.255", "fd69:736f:7072::100"):
        with pytest.raises(PolicyRefusal) as refused:
            target_of((ip_address(text), 80), nothing)
        assert refused.value.kind is ErrorKind.ADDRESS_REFUSED


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        (None, ErrorKind.ADDRESS_REFUSED),
        ((ip_address("9.9.9.9"), 53), ErrorKind.NOT_ALLOWED),
        ((ip_address("10.192.1.0"), 853), ErrorKind.NOT_ALLOWED),
    ],
)
def test_what_was_not_redirected_and_name_servers_are_refused(
    destination: Destination | None, kind: ErrorKind
) -> None:
    with pytest.raises(PolicyRefusal) as refused:
        target_of(destination, lambda at: "name.example")
    assert refused.value.kind is kind


def test_a_label_and_a_nonce_are_never_the_same() -> None:
    target = Target.parse("a.test", 80)
    labelled = tuple_of(b"u0", Program(b"u0", b"x", None), target)
    fresh = tuple_of(b"u0", Program(b"u0", None, b"x"), target)
    assert (labelled.username, labelled.password) == (b"x", None)
    assert (fresh.username, fresh.password) == (None, b"x")
    nobodys = tuple_of(LOCAL, None, target)
    assert (nobodys.username, nobodys.password) == (None, None)
    assert (nobodys.dest_host, nobodys.dest_port) == (b"a.test", 80)


def test_a_client_that_knows_of_no_proxy_is_told_nothing() -> None:
    silent = Silent()
    said = (silent.succeed(), silent.refuse(ErrorKind.BUSY), silent.resolved_name(b"x"))
    assert {*said, silent.resolved(IPv4Address(1)), silent.leftover} == {b""}


class Redirected:
    """A front end whose kernel says that every connection was going to `destination`."""

    def __init__(self, front: FrontEnd, program: Program | None = None) -> None:
        self.maps = ClientMaps(bytes)
        self.front = front
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.address = self._sock.getsockname()
        self.listener = front.transparent(SETTINGS, self._sock, self.maps, program)

    async def say(self, words: bytes, size: int) -> bytes:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(words)
        try:
            async with asyncio.timeout(10):
                return await reader.read(size)
        finally:
            writer.close()


@pytest.fixture
def going(monkeypatch: pytest.MonkeyPatch) -> list[Destination | None]:
    """The last item is where every connection was going."""
    destinations: list[Destination | None] = [None]
    monkeypatch.setattr(transparent, "original_destination", lambda sock: destinations[-1])
    return destinations


async def test_a_virtual_address_is_dialled_as_its_name_under_the_clients_key(
    going: list[Destination | None],
) -> None:
    async with SocksPort() as port, front_end(port) as front:
        redirected = Redirected(front)
        pair = redirected.maps.assign(LOCAL, "www.example.org", 0.0)
        assert pair is not None
        going.append((pair.ipv6, 443))
        assert await redirected.say(b"hello", 5) == b"hello"
        (request,) = port.requests
        assert (request.host, request.port) == (b"www.example.org", 443)
        target = Target.parse("www.example.org", 443)
        key = front.isolator.key_for(RULE.listener, tuple_of(LOCAL, None, target))
        assert request.password == upstream_credentials(key, APP).password
        handshakes = front.counters.handshakes
        assert handshakes["redirected", ClientProtocol.TRANSPARENT, None] == 1
        redirected.listener.close()


async def test_programs_are_told_apart_by_what_is_known_of_them(
    going: list[Destination | None],
) -> None:
    programs = [
        Program(b"u1", b"label", None),
        Program(b"u1", b"label", None),
        Program(b"u2", b"label", None),
        Program(b"u1", None, b"label"),
        Program(b"u1", None, b"another"),
        None,
    ]
    going.append((ip_address("9.9.9.9"), 80))
    async with SocksPort() as port, front_end(port) as front:
        for program in programs:
            redirected = Redirected(front, program)
            assert await redirected.say(b"x", 1) == b"x"
            redirected.listener.close()
        passwords = [request.password for request in port.requests]
        assert passwords[0] == passwords[1]
        assert len(set(passwords)) == len(passwords) - 1


@pytest.mark.parametrize("destination", [None, (ip_address("10.192.9.9"), 80)])
async def test_what_is_refused_ends_and_reaches_nobody(
    going: list[Destination | None], destination: Destination | None
) -> None:
    async with SocksPort() as port, front_end(port) as front:
        going.append(destination)
        redirected = Redirected(front)
        assert await redirected.say(b"hello", 5) == b""
        assert port.requests == []
        assert front.counters.refusals == {ErrorKind.ADDRESS_REFUSED: 1}
        redirected.listener.close()


async def test_names_that_are_dialled_nowhere_are_refused_whoever_said_them(
    going: list[Destination | None],
) -> None:
    async with SocksPort() as port, front_end(port) as front:
        redirected = Redirected(front)
        pair = redirected.maps.assign(LOCAL, "printer.local", 0.0)
        assert pair is not None
        going.append((pair.ipv4, 631))
        assert await redirected.say(b"hello", 5) == b""
        assert port.requests == []
        redirected.listener.close()


async def test_a_client_whose_stream_tor_refuses_is_ended(
    going: list[Destination | None],
) -> None:
    going.append((ip_address("9.9.9.9"), 80))
    reply = bytes.fromhex("05050001000000000000")
    async with SocksPort(refusing(reply)) as port, front_end(port) as front:
        redirected = Redirected(front)
        assert await redirected.say(b"", 5) == b""
        assert front.counters.refusals == {ErrorKind.CONNECTION_REFUSED: 1}
        redirected.listener.close()
