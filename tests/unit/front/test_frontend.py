"""The whole front end over a scripted SocksPort: clients good, bad and slow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, NamingError, OperationError
from isoproxy.front import half_close as tail
from isoproxy.front.connection import Connection
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.relay import Relay
from isoproxy.front.services import Limits, Names
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    Isolator,
    ListenerRule,
    client_of_address,
    client_of_uid,
    own_group,
)
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.socks import Command, Request, Server, encode_reply
from isoproxy.tor.dialer import Dialer, DialerSettings
from tests.kit.garbage import no_collector
from tests.kit.socks_port import SocksPort, refusing, silent
from tests.kit.users import NOBODY, effective_user
from tests.kit.waiting import until

GREETING = b"\x05\x01\x00"
CONNECT = GREETING + b"\x05\x01\x00\x03\x06a.test\x00\x50"
OK = b"\x05\x00" + bytes.fromhex("05000001000000000000")


@asynccontextmanager
async def front_end(
    port: SocksPort,
    *,
    limits: Limits | None = None,
    names: Names | None = None,
    endpoint: Endpoint | None = None,
) -> AsyncIterator[FrontEnd]:
    """A front end with one listener; afterwards nothing is left of it."""
    front: FrontEnd

    def defect(handler: Handler, error: Exception) -> None:
        front.internal_error(handler, error)

    reactor = Reactor(asyncio.get_running_loop(), defect)
    isolator = Isolator()
    dialer = Dialer(reactor, isolator, DialerSettings(port.endpoint, timeout_s=5))
    front = FrontEnd(reactor, isolator, dialer, limits=limits, names=names)
    rule = HandshakeRule(ListenerRule(own_group("test")))
    if names is not None:
        rule = replace(rule, top_levels=TopLevels())
    if endpoint is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = Endpoint.tcp(*free.getsockname())
    front.open(ListenerSettings("test", endpoint, rule))
    try:
        yield front
        assert front.counters.defects == 0
    finally:
        await front.drain(0)
        dialer.close()
        assert len(front.connections) == 0
        assert len(reactor) == 0
        assert front.listeners == {}
        assert not front.connections.per_client
        reactor.close()


async def client_of(front: FrontEnd) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    endpoint = front.listeners["test"].settings.endpoint
    if endpoint.path is not None:
        return await asyncio.open_unix_connection(endpoint.path)
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def say(front: FrontEnd, data: bytes, *, end: bool | None = None) -> bytes:
    """Say something, end if there is data for the far end, return all that is answered."""
    reader, writer = await client_of(front)
    writer.write(data)
    if end if end is not None else data.endswith((b"hello", b"hey", b"x")):
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except TimeoutError:
        pytest.fail("the connection was not ended")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_optimistic_data_travels_with_the_request() -> None:
    async with SocksPort() as port, front_end(port) as front:
        assert await say(front, CONNECT + b"hello") == OK + b"hello"
        assert front.counters.opened == 1


async def test_electrums_probe_is_answered_in_one_read() -> None:
    async with SocksPort() as port, front_end(port) as front:
        reader, writer = await client_of(front)
        writer.write(bytes.fromhex("05010005f0000307") + b"0.0.0.0\x00\x00")
        assert await reader.read(100) == bytes.fromhex("050005000001000000000000")
        writer.close()
        await writer.wait_closed()
        assert port.requests == []


async def test_a_byte_at_a_time_is_enough() -> None:
    async with SocksPort() as port, front_end(port) as front:
        reader, writer = await client_of(front)
        for byte in CONNECT + b"!":
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.001)
        assert await reader.readexactly(13) == OK + b"!"
        writer.close()
        await writer.wait_closed()


async def test_tors_refusal_reaches_the_client_with_its_code() -> None:
    async with (
        SocksPort(refusing(encode_reply(0xF0))) as port,
        front_end(port) as front,
    ):
        assert await say(front, CONNECT) == b"\x05\x00" + encode_reply(0xF0)
        assert front.counters.refusals[ErrorKind.ONION_NOT_FOUND] == 1


async def test_tor_that_is_away_is_an_error_and_works_again_when_back(tmp_path: Path) -> None:
    async with SocksPort(path=tmp_path / "tor") as port, front_end(port) as front:
        (tmp_path / "tor").rename(tmp_path / "away")
        assert await say(front, CONNECT) == b"\x05\x00" + encode_reply(1)
        (tmp_path / "away").rename(tmp_path / "tor")
        assert await say(front, CONNECT + b"x") == OK + b"x"


async def test_what_happened_is_counted_without_saying_to_whom() -> None:
    async with SocksPort() as port, front_end(port) as front:
        await say(front, CONNECT + b"x")
        await say(front, GREETING + b"\x05\x01\x00\x03\x05x.bit\x00\x50")
        await say(front, b"\x06")
        counters = front.counters
        socks5, bit = ClientProtocol.SOCKS5, ErrorKind.NAME_NEVER_SENT_TO_TOR
        assert counters.handshakes == {
            ("test", socks5, None): 2,
            ("test", None, ErrorKind.MALFORMED): 1,
        }
        assert counters.requests == {
            ("test", Command.CONNECT, None): 1,
            ("test", Command.CONNECT, bit): 1,
        }
        assert counters.refusals == {bit: 1, ErrorKind.MALFORMED: 1}
        assert sum(counters.dials.counts) == 1


async def test_resolve_and_resolve_ptr() -> None:
    async with SocksPort() as port, front_end(port) as front:
        port.serve = refusing(encode_reply(0, b"a.test"))
        ptr = GREETING + b"\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00"
        assert await say(front, ptr) == b"\x05\x00" + encode_reply(0, b"a.test")
        resolve = GREETING + b"\x05\xf0\x00\x03\x06a.test\x00\x00"
        assert (await say(front, resolve))[3] == 1
        port.serve = refusing(encode_reply(0))
        assert await say(front, resolve) == b"\x05\x00" + encode_reply(0)
        port.serve = refusing(b"\x05\x00\x00\x03\x00\x00\x00")
        assert await say(front, ptr) == b"\x05\x00" + encode_reply(1)  # a name of no bytes


class Table:
    """Names with fixed answers; counts what it is asked and under which key."""

    def __init__(self, answers: dict[str, str | NamingError]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, IsolationKey]] = []
        self.wants: list[Want] = []

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        self.asked.append((target.host, key))
        self.wants.append(want)
        assert client == client_of_address("127.0.0.1")
        answer = self.answers.get(target.host)
        if answer is None:
            await asyncio.sleep(3600)
            raise AssertionError
        if isinstance(answer, NamingError):
            raise answer
        return target.with_host(answer)


async def test_a_name_of_ours_is_resolved_first_and_never_sent_to_tor() -> None:
    onion = "a" * 56 + ".onion"
    table = Table(
        {
            "x.bit": onion,
            "ip.bit": "192.0.2.5",
            "loop.bit": "y.bit",
            "gone.bit": NamingError(kind=ErrorKind.NAME_ABSENT),
        }
    )
    async with SocksPort() as port, front_end(port, names=table) as front:
        connect = GREETING + b"\x05\x01\x00\x03"
        assert await say(front, connect + b"\x05x.bit\x00\x50hey") == OK + b"hey"
        assert port.requests[-1].host == onion.encode()
        for name, code in ((b"gone.bit", 4), (b"loop.bit", 2)):
            asked = connect + bytes((len(name),)) + name + b"\x00\x50"
            assert await say(front, asked) == b"\x05\x00" + encode_reply(code)
        resolve = GREETING + b"\x05\xf0\x00\x03"
        assert (await say(front, resolve + b"\x06ip.bit\x00\x00"))[3:10] == (
            b"\x00\x00\x01\xc0\x00\x02\x05"
        )[0:7]
        assert await say(front, resolve + b"\x05x.bit\x00\x00") == b"\x05\x00" + encode_reply(4)
        assert all(not request.host.endswith(b".bit") for request in port.requests)
        assert len({key for _, key in table.asked}) == 1
        assert table.wants == [Want.STREAM] * 3 + [Want.ADDRESS] * 2


async def test_a_client_that_leaves_takes_its_look_up_and_dial_with_it() -> None:
    async with SocksPort(silent) as port, front_end(port, names=Table({})) as front:
        for request in (CONNECT, GREETING + b"\x05\x01\x00\x03\x05x.bit\x00\x50"):
            _, writer = await client_of(front)
            writer.write(request)
            await asyncio.sleep(0.05)
            assert [connection.view(0).stage for connection in front.connections] == ["opening"]
            writer.transport.abort()
            await asyncio.sleep(0.05)
            assert len(front.connections) == 0
            assert front.dialer.pending == 0


async def test_names_that_a_reload_took_away_meanwhile_are_refused() -> None:
    async with SocksPort() as port, front_end(port, names=Table({})) as front:
        reader, writer = await client_of(front)
        writer.write(GREETING)
        assert await reader.readexactly(2) == b"\x05\x00"
        front.settings.names = None
        writer.write(b"\x05\x01\x00\x03\x05d.bit\x00\x50")
        assert await reader.read() == encode_reply(2)
        writer.close()
        assert port.requests == []


async def test_slow_handshakes_are_ended_with_a_word() -> None:
    limits = Limits(handshake_timeout_s=0.1)
    async with SocksPort() as port, front_end(port, limits=limits) as front:
        assert await say(front, b"", end=False) == b""
        assert await say(front, GREETING, end=False) == b"\x05\x00" + encode_reply(1)
        late = await say(front, b"CONNECT a.test:1 HT", end=False)
        assert late.startswith(b"HTTP/1.0 408 ")
        assert front.counters.refusals[ErrorKind.HANDSHAKE_TIMEOUT] == 3


async def test_idle_flows_end_and_busy_ones_do_not() -> None:
    async with SocksPort() as port, front_end(port, limits=Limits(idle_timeout_s=1.0)) as front:
        busy_reader, busy = await client_of(front)
        idle_reader, idle = await client_of(front)
        busy.write(CONNECT)
        idle.write(CONNECT)
        for _ in range(45):
            busy.write(b".")
            await asyncio.sleep(0.1)
        assert idle_reader.at_eof() or idle_reader.exception() is not None
        assert not busy_reader.at_eof()
        for writer in (busy, idle):
            writer.transport.abort()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_who_stays_after_tor_ended_the_stream_is_ended_soon(
    unix: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "TAIL_S", 0.1)

    async def answer_and_end(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed() + b"all there is")

    path = tmp_path / "socks" if unix else None
    async with SocksPort(answer_and_end, path) as port, front_end(port) as front:
        reader, writer = await client_of(front)
        writer.write(CONNECT)
        assert await reader.read() == OK + b"all there is"
        async with asyncio.timeout(4):
            await until(lambda: not front.connections)
        writer.transport.abort()


@pytest.mark.parametrize("first", ["client", "tor"])
async def test_a_stream_that_ended_leaves_nothing_for_the_garbage_collector(first: str) -> None:
    """Which looks seldom: a cycle for each stream would be a leak for hours."""

    async def serve(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        if first == "client":
            await reader.read()

    async with SocksPort(serve) as port, front_end(port) as front:
        await say(front, CONNECT, end=first == "client")  # what is made once is there then
        with no_collector():
            for _ in range(5):
                await say(front, CONNECT, end=first == "client")
            await until(lambda: not front.connections)
            left = [item for item in gc.get_objects() if isinstance(item, (Connection, Relay))]
            assert not left


async def test_budgets_refuse_with_a_word_and_recover() -> None:
    limits = Limits(max_connections=3, max_connections_per_client=2)
    async with SocksPort() as port, front_end(port, limits=limits) as front:
        held = [await client_of(front) for _ in range(2)]
        await asyncio.sleep(0.02)
        assert await say(front, b"", end=False) == b"\x05\xff"
        assert front.counters.refusals[ErrorKind.BUSY] == 1
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert await say(front, CONNECT + b"x") == OK + b"x"


async def test_running_out_of_descriptors_is_survived() -> None:
    async with SocksPort() as port, front_end(port) as front:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        blocked = [socket.socket() for _ in range(3)]
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            for sock in blocked:
                sock.setblocking(False)
                endpoint = front.listeners["test"].settings.endpoint
                sock.connect_ex((endpoint.host, endpoint.port))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            await asyncio.sleep(0.3)
            assert front.counters.fd_exhaustion > 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in blocked:
                sock.close()
        await asyncio.sleep(0.4)
        assert await say(front, CONNECT + b"x") == OK + b"x"


async def test_draining_waits_for_flows_and_takes_no_new_ones() -> None:
    async with SocksPort() as port, front_end(port) as front:
        reader, writer = await client_of(front)
        writer.write(CONNECT)
        await reader.readexactly(len(OK))
        draining = asyncio.ensure_future(front.drain(5))
        await asyncio.sleep(0.02)
        assert front.listeners == {}
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()
        await asyncio.wait_for(draining, 2)


async def test_what_ended_just_before_a_drain_is_forgotten_after_it() -> None:
    class Owner:
        def abort(self) -> None:
            raise AssertionError

    async with SocksPort() as port, front_end(port) as front:
        task = front.services.spawn(Owner(), asyncio.sleep(0))
        for _ in range(2):
            await asyncio.sleep(0)
        assert task.done()
        assert task in front.services.tasks  # its callbacks have not run yet
        await front.drain(0)
        assert not front.services.tasks


WHO_CAN_COME = (0, NOBODY) if os.geteuid() == 0 else (os.geteuid(),)


@pytest.mark.parametrize("uid", WHO_CAN_COME)
async def test_a_unix_listener_tells_its_users_apart(uid: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "socks"
        async with SocksPort() as port, front_end(port, endpoint=Endpoint.unix(str(path))) as front:
            for way, mode in ((Path(directory), 0o755), (path, 0o666)):
                way.chmod(mode)
            with socket.socket(socket.AF_UNIX) as client:
                with effective_user(uid):
                    client.connect(str(path))
                await until(lambda: list(front.connections.per_client) == [client_of_uid(uid)], 5)
            await until(lambda: not front.connections.per_client)


async def test_a_unix_listener_opens_for_us_alone_and_cleans_up(tmp_path: Path) -> None:
    endpoint = Endpoint.unix(str(tmp_path / "socks"))
    async with SocksPort() as port, front_end(port, endpoint=endpoint) as front:
        assert stat.S_IMODE((tmp_path / "socks").stat().st_mode) == 0o600
        answer = await say(front, CONNECT + b"x")
        assert answer == b"\x05\x00\x05\x00\x00\x04" + bytes(18) + b"x"
        with pytest.raises(OperationError):
            front.open(ListenerSettings("again", endpoint, front.listeners["test"].rule))
    assert not (tmp_path / "socks").exists()
    (tmp_path / "socks").touch()
    with pytest.raises(OperationError):
        async with SocksPort() as port, front_end(port, endpoint=endpoint):
            pass


async def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socks"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with SocksPort() as port, front_end(port, endpoint=Endpoint.unix(str(path))) as front:
        assert await say(front, CONNECT + b"x")


@settings(max_examples=15)
@given(st.lists(st.binary(min_size=1, max_size=120), min_size=20, max_size=60))
def test_garbage_by_the_dozen_harms_nobody(garbage: list[bytes]) -> None:
    async def play() -> None:
        async with SocksPort() as port, front_end(port) as front:
            reader, writer = await client_of(front)
            writer.write(CONNECT)
            await reader.readexactly(len(OK))
            await asyncio.gather(*(say(front, data, end=True) for data in garbage))
            writer.write(b"unharmed")
            assert await reader.readexactly(8) == b"unharmed"
            writer.close()
            await writer.wait_closed()

    asyncio.run(play())


async def test_nothing_identifying_is_logged_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [b"Wuser", b"Wpass", b"wname"]
    auth = b"\x05\x01\x02\x01\x05Wuser\x05Wpass"
    asks = [
        auth + b"\x05\x01\x00\x03\x0awname.test\x00\x50",
        auth + b"\x05\x01\x00\x03\x09wname.bit\x00\x50",
        auth + b"\x05\x01\x00\x03\x09wname bit\x00\x50",
        auth + b"\x05\xf0\x00\x03\x0awname.test\x00\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01Wuser\x00wname.test\x00",
        b"CONNECT wname.test:80 HTTP/1.1\r\nProxy-Authorization: Wpass\r\nHost: x\r\n\r\n",
        b"GET http://wname.test/ HTTP/1.1\r\nHost: wname.test\r\n\r\n",
    ]

    async def failing(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(encode_reply(len(port.requests) % 8 + 1))

    shown, held = "", list[asyncio.StreamWriter]()
    async with SocksPort(silent) as port, front_end(port) as front:
        for data in (asks[0], asks[4], asks[5]):
            _, writer = await client_of(front)
            writer.write(data)
            await until(lambda: len(port.requests) > len(held))
            held.append(writer)
        shown += repr([connection.view(0) for connection in front.connections])
        for writer in held:
            writer.close()
        assert shown.count("FlowView") == 3
    async with SocksPort(failing) as port, front_end(port) as front:
        for data in asks:
            await say(front, data, end=False)
        front.internal_error(Silent(), ValueError("a defect"))
        front.counters.defects = 0
        shown += (
            caplog.text
            + repr(front.counters)
            + repr([connection.view(0) for connection in front.connections])
        )
        for connection in front.connections:
            shown += repr(connection) + repr(connection.request)
        assert "internal_error" in caplog.text
    for secret in secrets:
        assert secret.decode() not in shown


class Silent:
    def on_events(self, fd: int, events: int) -> None:
        return
