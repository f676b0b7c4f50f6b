"""Every dial carries a key's credentials, ends, and leaves nothing open."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from isoproxy.errors import DialError, ErrorKind, PolicyRefusal
from isoproxy.isolation import (
    APP,
    P2P,
    PROP351_USERNAME,
    CredentialForm,
    IsolationKey,
    Isolator,
    upstream_credentials,
)
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.socks import Address, Command, Request, Server, encode_reply
from isoproxy.tor.dial import Dial
from isoproxy.tor.dialer import Dialer, DialerSettings
from tests.kit.socks_port import Serve, SocksPort, echo, refusing, silent
from tests.kit.waiting import until

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
TARGET = Target.parse("a.test", 80)


@asynccontextmanager
async def dialing(
    endpoint: Endpoint, *, timeout_s: float = 5.0, max_pending: int = 24
) -> AsyncIterator[tuple[Dialer, IsolationKey]]:
    """A dialer and a key; afterwards nothing may be pending, open or registered."""

    def defect(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), defect)
    isolator = Isolator()
    settings = DialerSettings(endpoint, timeout_s=timeout_s, max_pending_circuits=max_pending)
    dialer = Dialer(reactor, isolator, settings)
    try:
        yield dialer, isolator.own_key("test")
        assert (dialer.pending, dialer.circuits.pending, dialer.circuits.queued) == (0, 0, 0)
        assert len(reactor) == 0
    finally:
        dialer.close()
        reactor.close()


@pytest.mark.parametrize("form", CredentialForm)
@pytest.mark.parametrize("unix", [True, False])
async def test_a_stream_is_opened_with_the_keys_credentials(
    form: CredentialForm, unix: bool, tmp_path: Path
) -> None:
    async with SocksPort(path=tmp_path / "socks" if unix else None) as port:
        async with dialing(port.endpoint) as (dialer, key):
            dialer.form = form
            with await dialer.connect(key, P2P, TARGET) as sock:
                sock.send(b"hello")
                assert await asyncio.get_running_loop().sock_recv(sock, 9) == b"hello"
        expected = upstream_credentials(key, P2P, form)
        assert port.requests[0].username == expected.username
        assert port.requests[0].password == expected.password
        assert (port.requests[0].host, port.requests[0].port) == (b"a.test", 80)


async def test_the_first_bytes_of_the_far_end_stay_in_the_kernel() -> None:
    async def greeting(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed() + b"220 hello\r\n")
        await reader.read()

    async with SocksPort(greeting) as port, dialing(port.endpoint) as (dialer, key):
        sock = await dialer.connect(key, APP, TARGET)
        with sock:
            await asyncio.sleep(0.02)
            assert sock.recv(100) == b"220 hello\r\n"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, ErrorKind.GENERAL_FAILURE),
        (4, ErrorKind.HOST_UNREACHABLE),
        (5, ErrorKind.CONNECTION_REFUSED),
        (0xF0, ErrorKind.ONION_NOT_FOUND),
        (0xF6, ErrorKind.ONION_BAD_ADDRESS),
    ],
)
async def test_tors_refusals_keep_their_kind(code: int, kind: ErrorKind) -> None:
    async with (
        SocksPort(refusing(encode_reply(code))) as port,
        dialing(port.endpoint) as (dialer, key),
    ):
        with pytest.raises(DialError) as caught:
            await dialer.connect(key, APP, TARGET)
        assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (refusing(b"HTTP/1.0 400 no\r\n\r\n"), ErrorKind.TOR_PROTOCOL),
        (refusing(b""), ErrorKind.TOR_UNREACHABLE),
        (refusing(b"\x05\x00\x00"), ErrorKind.TOR_UNREACHABLE),
    ],
)
async def test_what_is_not_tor_is_an_error(serve: Serve, kind: ErrorKind) -> None:
    async with SocksPort(serve) as port, dialing(port.endpoint) as (dialer, key):
        with pytest.raises(DialError) as caught:
            await dialer.connect(key, APP, TARGET)
        assert caught.value.kind is kind


async def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoints = [
            Endpoint.tcp(*reserved.getsockname()),
            Endpoint.unix(str(tmp_path / "absent")),
            Endpoint(),
        ]
        for endpoint in endpoints:
            async with dialing(endpoint) as (dialer, key):
                with pytest.raises(DialError) as caught:
                    await dialer.connect(key, APP, TARGET)
                assert caught.value.kind is ErrorKind.TOR_UNREACHABLE


async def test_a_dial_that_is_not_answered_ends_at_its_deadline() -> None:
    async with SocksPort(silent) as port, dialing(port.endpoint) as (dialer, key):
        with pytest.raises(DialError) as caught:
            await dialer.connect(key, APP, TARGET, timeout=0.1)
        assert caught.value.kind is ErrorKind.DIAL_TIMEOUT


async def test_new_circuits_queue_and_say_so() -> None:
    async with SocksPort(silent) as port, dialing(port.endpoint, max_pending=1) as (dialer, _):
        keys = [dialer.isolator.own_key("queue") for _ in range(3)]
        outcomes = await asyncio.gather(
            *(dialer.connect(key, APP, TARGET, timeout=0.1) for key in keys),
            return_exceptions=True,
        )
        kinds = [outcome.kind for outcome in outcomes if isinstance(outcome, DialError)]
        assert kinds.count(ErrorKind.CIRCUITS_PENDING) == 2
        assert kinds.count(ErrorKind.DIAL_TIMEOUT) == 1
        assert len(port.requests) == 1


async def test_a_standing_circuit_needs_no_slot() -> None:
    async with SocksPort(echo) as port, dialing(port.endpoint, max_pending=1) as (dialer, key):
        (await dialer.connect(key, APP, TARGET)).close()
        port.serve = silent
        blocker = asyncio.ensure_future(
            dialer.connect(dialer.isolator.own_key("slow"), APP, TARGET, timeout=30)
        )
        await until(lambda: len(port.requests) == 2)
        port.serve = echo
        (await dialer.connect(key, APP, TARGET, timeout=10)).close()
        blocker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocker


@pytest.mark.parametrize("host", ["x.bit", "X.BIT.", "a.i2p", "printer.local"])
async def test_some_names_never_reach_tor(host: str) -> None:
    async with SocksPort() as port, dialing(port.endpoint) as (dialer, key):
        with pytest.raises(PolicyRefusal) as caught:
            await dialer.connect(key, APP, Target.parse(host, 80))
        assert caught.value.kind is ErrorKind.NAME_NEVER_SENT_TO_TOR
        assert port.requests == []


@pytest.mark.parametrize("host", ["a_b.test", "-a.test", "a-.test", "a.-.test", "x" * 64 + ".test"])
async def test_a_name_that_arti_hangs_up_on_is_refused_before(host: str) -> None:
    async with SocksPort() as port, dialing(port.endpoint) as (dialer, key):
        port.serve = echo
        (await dialer.connect(key, APP, Target.parse(host, 80))).close()
        dialer.follow(replace(dialer.settings, strict_names=True))
        with pytest.raises(PolicyRefusal) as caught:
            await dialer.connect(key, APP, Target.parse(host, 80))
        assert caught.value.kind is ErrorKind.NAME_SYNTAX
        assert len(port.requests) == 1


@pytest.mark.parametrize("host", ["a-b.test", "a", "x" * 63 + ".test", "192.0.2.1", "2001:db8::1"])
async def test_a_name_that_arti_takes_is_not_refused(host: str) -> None:
    async with SocksPort() as port, dialing(port.endpoint) as (dialer, key):
        port.serve = echo
        dialer.follow(replace(dialer.settings, strict_names=True))
        (await dialer.connect(key, APP, Target.parse(host, 80))).close()


@pytest.mark.parametrize("strict", [False, True])
async def test_there_is_no_stream_to_port_zero(strict: bool) -> None:
    async with SocksPort() as port, dialing(port.endpoint) as (dialer, key):
        dialer.follow(replace(dialer.settings, strict_names=strict))
        for host in ("a.test", "192.0.2.1"):
            with pytest.raises(PolicyRefusal) as caught:
                await dialer.connect(key, APP, Target.parse(host, 0), timeout=1)
            assert caught.value.kind is ErrorKind.NAME_SYNTAX
        assert port.requests == []


async def test_it_follows_a_socks_port_that_moves() -> None:
    async with SocksPort() as port, dialing(Endpoint()) as (dialer, key):
        port.serve = echo
        with pytest.raises(DialError) as caught:
            await dialer.connect(key, APP, TARGET)
        assert caught.value.kind is ErrorKind.TOR_UNREACHABLE
        assert dialer.move(port.endpoint)
        assert not dialer.move(port.endpoint)
        (await dialer.connect(key, APP, TARGET)).close()


async def test_a_key_of_an_old_epoch_opens_nothing(tmp_path: Path) -> None:
    nobody = Endpoint.unix(str(tmp_path / "nobody"))  # as a dial that goes so far would say
    async with dialing(nobody) as (dialer, key):
        dialer.isolator.new_epoch()
        with pytest.raises(DialError) as caught:
            await dialer.connect(key, APP, TARGET)
        assert caught.value.kind is ErrorKind.STALE_KEY


async def test_credentials_of_an_old_epoch_are_not_shown_to_a_tor_that_was_slow() -> None:
    greeted, answer, said = asyncio.Event(), asyncio.Event(), bytearray()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        greeted.set()
        await answer.wait()
        writer.write(b"\x05\x02")
        said.extend(await reader.read())
        writer.close()

    async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
        endpoint = Endpoint.tcp(*server.sockets[0].getsockname())
        async with dialing(endpoint) as (dialer, key):
            opening = asyncio.ensure_future(dialer.connect(key, APP, TARGET))
            await greeted.wait()
            dialer.isolator.new_epoch()
            answer.set()
            with pytest.raises(DialError) as caught:
                await opening
            assert caught.value.kind is ErrorKind.STALE_KEY
    assert said == b""


@pytest.mark.parametrize(
    ("command", "host"),
    [(Command.RESOLVE, ip_address("192.0.2.9")), (Command.RESOLVE_PTR, b"a.test")],
)
async def test_resolving(command: Command, host: Address | bytes) -> None:
    async with SocksPort(refusing(encode_reply(0, host))) as port:
        async with dialing(port.endpoint) as (dialer, key):
            over: asyncio.Future[Dial] = asyncio.get_running_loop().create_future()
            target = Target.parse("192.0.2.9" if command is Command.RESOLVE_PTR else "a.test", 0)
            dialer.start(key, APP, target, over.set_result, command=command)
            dial = await asyncio.wait_for(over, 5)
            assert dial.reply is not None
            assert dial.reply.host == host
        assert [request.command for request in port.requests] == [command]


async def test_cancelling_leaves_no_descriptor_open() -> None:
    async with SocksPort(silent) as port:
        before = len(os.listdir("/proc/self/fd"))
        async with dialing(port.endpoint) as (dialer, key):
            waiting = [asyncio.ensure_future(dialer.connect(key, APP, TARGET)) for _ in range(20)]
            await until(lambda: port.requests)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: port.open == 0)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_the_dialer_ends_what_is_pending() -> None:
    async with SocksPort(silent) as port, dialing(port.endpoint) as (dialer, key):
        waiting = asyncio.ensure_future(dialer.connect(key, APP, TARGET))
        await until(lambda: port.requests)
        dialer.close()
        with pytest.raises(DialError):
            await waiting
    assert port.requests[0].username == PROP351_USERNAME


async def test_a_key_whose_identity_was_renewed_opens_nothing(tmp_path: Path) -> None:
    nobody = Endpoint.unix(str(tmp_path / "nobody"))
    async with dialing(nobody) as (dialer, key):
        dialer.isolator.renew(key.label)
        with pytest.raises(DialError) as caught:
            await dialer.connect(key, APP, TARGET)
        assert caught.value.kind is ErrorKind.STALE_KEY


@pytest.mark.parametrize("host", [ONION, f"www.{ONION}"])
async def test_a_service_with_a_client_key_is_for_one_listener(host: str) -> None:
    async with SocksPort() as port, dialing(port.endpoint) as (dialer, key):
        trusted = {ONION.removesuffix(".onion"): "alice"}
        dialer.settings = replace(dialer.settings, onions_of_listeners=trusted)
        target, opened = Target.parse(host, 80), asyncio.Event()
        for listener in ("bob", ""):
            with pytest.raises(PolicyRefusal) as caught:
                dialer.start(key, APP, target, lambda dial: None, listener=listener)
            assert caught.value.kind is ErrorKind.ONION_AUTH_MISSING
        with pytest.raises(PolicyRefusal):  # as whoever names no listener
            await dialer.connect(key, APP, target)
        assert port.requests == []
        dialer.start(key, APP, target, lambda dial: opened.set(), listener="alice")
        await opened.wait()
        assert [request.host for request in port.requests] == [host.encode()]
