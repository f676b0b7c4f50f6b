"""Real stream processes of a main process that is this one, over a scripted SocksPort."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.known_peers import PeerMemory, Spoken
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.options import Fallback
from isoproxy.errors import NamingError
from isoproxy.front.services import Limits
from isoproxy.isolation import (
    APP,
    P2P,
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    client_of_address,
    upstream_credentials,
)
from isoproxy.namecoin.resolve.answer import Site, Want
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.socks import Request, Server
from isoproxy.tor.dialer import DialerSettings
from isoproxy.workers import supervisor as module
from isoproxy.workers.answering import MainServices
from isoproxy.workers.budgets import limits_of
from isoproxy.workers.messages import BitcoinSettings, Settings
from isoproxy.workers.supervisor import Workers
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until as soon
from tests.unit.bitcoin.peers import HELLO
from tests.unit.front.test_frontend import CONNECT, OK
from tests.unit.workers.parent import listener

until: Final = partial(soon, seconds=60)
BIT: Final = b"\x05\x01\x00\x05\x01\x00\x03\x05d.bit\x00\x50"
TO_PEER: Final = b"\x05\x01\x00\x05\x01\x00\x03\x0cpeer.example" + (8333).to_bytes(2)
PEER: Final = Target.parse("peer.example", 8333)


class Names:
    """Every name is an address, once `open` is set; says under which keys it was asked."""

    def __init__(self) -> None:
        self.keys: list[IsolationKey] = []
        self.cancelled = 0
        self.open = asyncio.Event()
        self.open.set()

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        self.keys.append(key)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if target.host != "d.bit":
            raise NamingError
        return Target.parse("192.0.2.1", target.port)

    async def site_of(self, target: Target, key: IsolationKey, client: bytes | None) -> Site:
        return Site(await self.address_of(target, key, Want.SITE, client))


@dataclass
class Main:
    """What a main process has; `settings` are told when a process begins or is configured."""

    reactor: Reactor
    settings: Settings
    listening: ListeningSocket
    isolator: Isolator = field(default_factory=Isolator)
    names: Names = field(default_factory=Names)
    known: PeerMemory = field(default_factory=lambda: PeerMemory(time.monotonic))
    workers: Workers = field(init=False)

    def __post_init__(self) -> None:
        services = MainServices(self.isolator, lambda: self.names, self.known)
        self.workers = Workers(
            self.reactor,
            services,
            1,
            lambda index: self.settings,
            lambda settings: [self.listening.socket],
        )

    @property
    def serves(self) -> bool:
        return any(one["serving"] for one in self.workers.processes())

    @property
    def pid(self) -> int:
        (process,) = self.workers.processes()
        assert isinstance(process["pid"], int)
        return process["pid"]

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listening.socket.getsockname())

    async def say(self, words: bytes, length: int) -> bytes:
        reader, writer = await self.client()
        writer.write(words)
        try:
            async with asyncio.timeout(60):
                return await reader.readexactly(length)
        finally:
            writer.close()

    def credentials(self) -> bytes | None:
        """The password derived here for a client on loopback that says nothing of itself."""
        client = client_of_address("127.0.0.1")
        stream = IsolationTuple(client, ClientProtocol.SOCKS5, dest_host=b"a.test", dest_port=80)
        rule = self.settings.listeners[0].rule.listener
        return upstream_credentials(self.isolator.key_for(rule, stream), APP).password


@asynccontextmanager
async def main_process(
    port: SocksPort, *, limits: Limits | None = None, bitcoin: BitcoinSettings | None = None
) -> AsyncIterator[Main]:
    """A main process and one stream process, which serves; afterwards that is gone."""

    def defect(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), defect)
    settings = Settings(
        (listener(),),
        limits or Limits(),
        DialerSettings(port.endpoint, timeout_s=30),
        bitcoin or BitcoinSettings(),
        30.0,
        ("notice", "text", True),
    )
    main = Main(reactor, settings, ListeningSocket.open(Endpoint(host="127.0.0.1", port=0), 0o600))
    main.isolator.on_new_epoch(main.known.forget)
    main.workers.start()
    try:
        await until(lambda: main.serves)
        assert main.workers.serving.is_set()
        yield main
    finally:
        pids = [main.pid] if main.workers.running else []
        await main.workers.drain(0)
        main.listening.close()
        reactor.close()
        assert not any(map(runs, pids))


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_it_serves_with_the_keys_of_the_main_process_which_carries_nothing() -> None:
    async with SocksPort() as port, main_process(port) as main:
        assert await main.say(CONNECT + b"hello", 17) == OK + b"hello"
        (asked,) = port.requests
        assert asked.password == main.credentials()
        assert len(main.reactor) == 1, "the channel, and no client"


async def test_nothing_is_run_from_the_folder_that_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    async with SocksPort() as port, main_process(port) as main:
        assert await main.say(CONNECT + b"hello", 17) == OK + b"hello"
    assert os.listdir(tmp_path) == ["pickle.py"]


async def test_what_it_counts_is_told() -> None:
    async with SocksPort() as port, main_process(port) as main:
        assert await main.say(CONNECT + b"hello", 17) == OK + b"hello"
        assert await main.say(b"\x05\x01\x09", 2) == b"\x05\xff"
        reader, writer = await main.client()
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        report = await main.workers.report()
        assert report.accepted == {"test": 3}
        assert report.counters.opened == 2
        assert report.counters.refusals.total() == 1
        assert sum(report.counters.dials.counts) == report.counters.handshakes.total() - 1 == 2
        (flow,) = [flow for flow in report.flows if flow.bytes_down == 1]
        assert (flow.listener, flow.stage) == ("test", "relaying")
        writer.close()
        await writer.wait_closed()


async def test_a_stream_to_a_name_is_carried_there_under_the_key_of_its_look_up() -> None:
    async with SocksPort() as port, main_process(port) as main:
        assert await main.say(BIT + b"early", 17) == OK + b"early"
        (key,) = main.names.keys
        (asked,) = port.requests
        assert asked.host == b"192.0.2.1"
        assert asked.password == upstream_credentials(key, APP).password
        assert (await main.workers.report()).counters.opened == 1
        assert len(main.reactor) == 1


async def test_a_client_that_leaves_takes_its_look_up_with_it() -> None:
    async with SocksPort() as port, main_process(port) as main:
        main.names.open.clear()
        _, writer = await main.client()
        writer.write(BIT)
        await until(lambda: main.names.keys)
        writer.close()
        await until(lambda: main.names.cancelled == 1)
        assert port.requests == []


async def test_a_stream_to_a_bitcoin_peer_asks_for_what_the_main_process_knows() -> None:
    """A peer that is proven to speak v2 and is silent is not spoken to in v1; another is."""
    heard: list[bytes] = []

    async def leave(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        heard.append(server.leftover + await reader.readexactly(64 - len(server.leftover)))
        if heard[-1].startswith(MAINNET.magic):
            await reader.read()

    carrying = CarrySettings(Fallback.ALWAYS, ports=frozenset({8333}))
    async with (
        SocksPort(serve=leave) as port,
        main_process(port, bitcoin=BitcoinSettings(carrying)) as main,
    ):

        async def visit() -> asyncio.StreamWriter:
            reader, writer = await main.client()
            writer.write(TO_PEER)
            assert await reader.readexactly(len(OK)) == OK
            writer.write(HELLO)
            return writer

        first = await visit()
        await until(lambda: len(heard) == 2)
        assert [words.startswith(MAINNET.magic) for words in heard] == [False, True]
        (flow,) = (await main.workers.report()).bitcoin.flows
        assert (flow.transport.value, flow.fell_back) == ("v1", True)

        rule = main.settings.listeners[0].rule.listener
        client = client_of_address("127.0.0.1")
        stream = IsolationTuple(client, ClientProtocol.SOCKS5, None, None, b"peer.example", 8333)
        key = main.isolator.key_for(rule, stream)
        assert port.requests[0].password == upstream_credentials(key, P2P).password
        await until(lambda: main.known.has(key, PEER) is Spoken.V1)
        main.known.note(key, PEER, Spoken.V2)
        second = await visit()
        await until(lambda: len(heard) == 3)
        async with asyncio.timeout(60):
            while (await main.workers.report()).bitcoin.totals.outcomes.total() < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert len(heard) == 3
        assert not heard[2].startswith(MAINNET.magic)
        for writer in (first, second):
            writer.close()


async def test_once_settled_none_uses_the_old_epoch() -> None:
    async with SocksPort() as port, main_process(port) as main:
        used = set()
        for _ in range(3):
            assert await main.say(CONNECT + b"x", 13) == OK + b"x"
            assert port.requests[-1].password == main.credentials()
            used.add(port.requests[-1].password)
            main.isolator.new_epoch()
            await main.workers.settled()
        assert len(used) == 3


async def test_one_that_does_not_answer_a_new_epoch_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with SocksPort() as port, main_process(port) as main:
        monkeypatch.setattr(module, "ANSWER_S", 0.3)
        stuck = main.pid
        os.kill(stuck, signal.SIGSTOP)
        main.isolator.new_epoch()
        await main.workers.settled()
        monkeypatch.undo()
        await until(lambda: not runs(stuck))
        assert await main.say(CONNECT + b"x", 13) == OK + b"x"
        assert port.requests[-1].password == main.credentials()


async def test_one_that_dies_is_replaced_and_its_counts_and_its_clients_to_come_stay() -> None:
    async with SocksPort() as port, main_process(port) as main:
        assert await main.say(BIT + b"x", 13) == OK + b"x"
        assert (await main.workers.report()).counters.opened == 1
        main.names.open.clear()
        reader, writer = await main.client()
        writer.write(BIT)
        await until(lambda: len(main.names.keys) == 2)
        first = main.pid
        os.kill(first, signal.SIGKILL)
        waiting = asyncio.create_task(main.say(CONNECT + b"y", 13))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b"\x05\x00"
        await until(lambda: main.names.cancelled == 1)
        assert await waiting == OK + b"y"
        assert main.pid != first
        assert (await main.workers.report()).counters.opened == 2
        writer.close()


async def test_one_that_has_not_begun_to_serve_is_gone_when_all_have_left() -> None:
    async with SocksPort() as port, main_process(port) as main:
        os.kill(main.pid, signal.SIGKILL)
        gone = main.pid
        await until(lambda: main.workers.running and main.pid != gone)
        pid = main.pid
        assert not main.serves
        await main.workers.leave(0)
        assert not runs(pid)


async def test_a_stream_process_keeps_to_its_part_of_the_budgets() -> None:
    limits = limits_of(Limits(max_connections=1000, max_connections_per_client=128), 0, 2)
    async with SocksPort() as port, main_process(port, limits=limits) as main:
        clients = [await main.client() for _ in range(66)]
        async with asyncio.timeout(60):
            while (await main.workers.report()).accepted["test"] < 66:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        refused = sum([await is_refused(reader) for reader, _ in clients])
        assert refused == 2
        for _, writer in clients:
            writer.close()


async def is_refused(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.02):
            return await reader.read(2) == b"\x05\xff"
    except TimeoutError:
        return False


async def test_other_settings_are_served_by_and_connections_stay() -> None:
    async with SocksPort() as port, main_process(port) as main:
        reader, writer = await main.client()
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        (old,) = main.settings.listeners
        strict = replace(old, rule=replace(old.rule, require_auth=True))
        main.settings = replace(main.settings, listeners=(strict,))
        main.workers.configure()
        await main.workers.settled()
        assert await main.say(CONNECT, 2) == b"\x05\xff"
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        writer.close()
        await writer.wait_closed()


HOSTILE: Final = {
    "no object": b"[]",
    "no JSON": b"{",
    "a report nobody asked for": b'{"done": 1}',
    "a part nobody asked for": b'{"part": 1, "flows": []}',
    "Infinity": b'{"done": Infinity}',
    "a float beyond all": b'{"ask": "withdraw", "number": 1e999}',
    "deep": b'{"ask": ' + b"[" * 100_000,
    "a question that is none": b'{"ask": "everything", "number": 1}',
    "a question too long": b'{"ask": "withdraw", "number": 1, "pad": "' + b"x" * 4096 + b'"}',
    "a key that is none": b'{"ask": "remember", "host": "a.test", "port": 1, "key": 7}',
}


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE.keys())
async def test_one_that_breaks_the_protocol_is_ended_and_replaced(words: bytes) -> None:
    async with SocksPort() as port, main_process(port) as main:
        first = main.pid
        (process,) = main.workers.running
        process._on_message(words, [])
        await until(lambda: not runs(first))
        assert await main.say(BIT + b"x", 13) == OK + b"x"
        assert main.pid != first


async def test_more_questions_than_agreed_end_the_process_and_their_look_ups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isoproxy.workers.answering.MAX_UNDER_WAY", 6)
    async with SocksPort() as port, main_process(port) as main:
        main.names.open.clear()
        first, clients = main.pid, []
        for number in range(4):
            await until(lambda: len(main.names.keys) == number)  # noqa: B023  asked at once
            _, writer = await main.client()
            writer.write(BIT)
            clients.append(writer)
        await until(lambda: not runs(first))
        await until(lambda: main.names.cancelled == 3)
        main.names.open.set()
        assert await main.say(BIT + b"x", 13) == OK + b"x"
        for writer in clients:
            writer.close()


async def test_however_often_it_is_asked_it_has_one_report_to_write() -> None:
    async with SocksPort() as port, main_process(port) as main:
        (process,) = main.workers.running
        told: list[Mapping[str, Any]] = []
        take = process._on_report

        def note(said: Mapping[str, Any]) -> None:
            told.append(said)
            take(said)

        process._on_report = note  # type: ignore[method-assign]
        assert await main.say(CONNECT + b"x", 13) == OK + b"x"
        reports = await asyncio.gather(*(main.workers.report() for _ in range(50)))
        assert [report.counters.opened for report in reports] == [1] * 50
        assert sum("done" in said for said in told) < 5


@pytest.mark.parametrize("when", ["before it runs", "before it has begun"])
async def test_one_that_starts_meanwhile_begins_in_the_new_epoch(when: str) -> None:
    async with SocksPort() as port, main_process(port) as main:
        assert await main.say(CONNECT + b"x", 13) == OK + b"x"
        old, first = port.requests[-1].password, main.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: not main.workers.running)
        if when == "before it has begun":
            await until(lambda: main.workers.running)
            assert not main.serves
        waiting = asyncio.create_task(main.say(CONNECT + b"x", 13))
        main.isolator.new_epoch()
        await main.workers.settled()
        assert await waiting == OK + b"x"
        assert old != port.requests[-1].password == main.credentials()
