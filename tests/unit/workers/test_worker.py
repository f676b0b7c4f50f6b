"""A stream process in this process: every stream is its own, names it asks for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from isoproxy.errors import ErrorKind, socks_reply_code
from isoproxy.front.connection import Connection
from isoproxy.front.statistics import FlowView
from isoproxy.isolation import (
    APP,
    ClientProtocol,
    IsolationTuple,
    Isolator,
    client_of_address,
    upstream_credentials,
)
from isoproxy.net.target import Target
from isoproxy.socks import encode_reply
from isoproxy.workers.messages import (
    Configure,
    Drain,
    Epoch,
    NameReply,
    StatsRequest,
    SumsRequest,
)
from isoproxy.workers.report import FLOWS_PER_MESSAGE, ToldFlows
from tests.kit.socks_port import SocksPort, silent
from tests.kit.waiting import until
from tests.unit.front.test_frontend import CONNECT, OK
from tests.unit.workers.parent import Parent, listening, parent_of_worker

BIT = b"\x05\x01\x00\x05\x01\x00\x03\x05d.bit\x00\x50"


async def until_accepted(parent: Parent, count: int) -> None:
    """Wait until so many clients have been accepted."""
    report = await parent.order(SumsRequest)
    while report.accepted["test"] < count:
        report = await parent.order(SumsRequest)


async def say(parent: Parent, words: bytes, length: int) -> bytes:
    reader, writer = await parent.client()
    writer.write(words)
    try:
        async with asyncio.timeout(10):
            return await reader.readexactly(length)
    finally:
        writer.close()


def credentials_here(parent: Parent) -> tuple[bytes, bytes]:
    """What the parent derives for a client on loopback that says nothing of itself."""
    client = client_of_address("127.0.0.1")
    stream = IsolationTuple(client, ClientProtocol.SOCKS5, dest_host=b"a.test", dest_port=80)
    key = parent.isolator.key_for(parent.settings.listeners[0].rule.listener, stream)
    credentials = upstream_credentials(key, APP)
    return credentials.username, credentials.password


async def test_a_stream_needs_nothing_of_the_parent_but_its_keys() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        assert await say(parent, CONNECT + b"hello", 17) == OK + b"hello"
        (asked,) = port.requests
        assert (asked.username, asked.password) == credentials_here(parent)
        assert not any("ask" in said for said in parent.said)
        report = await parent.report()
        assert (report.counters.opened, report.accepted) == (1, {"test": 1})


async def test_a_name_is_asked_for_and_its_stream_carried_here() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        reader, writer = await parent.client()
        writer.write(BIT + b"early")
        question = await parent.asked("name")
        assert (question["host"], question["port"]) == ("d.bit", 80)
        key = parent.isolator.import_key(bytes.fromhex(question["key"]))
        parent.tell(NameReply(question["number"], Target.parse("192.0.2.1", 80)))
        assert await reader.readexactly(17) == OK + b"early"
        (asked,) = port.requests
        assert asked.host == b"192.0.2.1"
        assert asked.password == upstream_credentials(key, APP).password
        assert (await parent.report()).counters.opened == 1
        writer.close()


async def test_a_name_without_an_answer_is_refused_with_its_reason() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        reader, writer = await parent.client()
        writer.write(BIT)
        question = await parent.asked("name")
        parent.tell(NameReply(question["number"], kind=ErrorKind.NAME_EXPIRED))
        refusal = encode_reply(socks_reply_code(ErrorKind.NAME_EXPIRED, extended=True))
        assert await reader.read() == b"\x05\x00" + refusal
        assert port.requests == []
        writer.close()


async def test_a_client_that_leaves_withdraws_its_question() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        _, writer = await parent.client()
        writer.write(BIT)
        question = await parent.asked("name")
        writer.close()
        assert (await parent.asked("withdraw"))["number"] == question["number"]
        parent.tell(NameReply(question["number"], Target.parse("192.0.2.1", 80)))
        assert await say(parent, CONNECT + b"x", 13) == OK + b"x"
        assert [request.host for request in port.requests] == [b"a.test"]


async def test_after_an_answer_nothing_of_the_old_epoch_is_used() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        used = set()
        for _ in range(3):
            assert await say(parent, CONNECT + b"x", 13) == OK + b"x"
            assert port.requests[-1].password == credentials_here(parent)[1]
            used.add(port.requests[-1].password)
            parent.isolator.new_epoch()
            state = parent.isolator.export_state()
            await parent.order(lambda ticket, state=state: Epoch(ticket, state))  # type: ignore[misc]
        assert len(used) == 3


async def test_other_settings_are_followed_and_connections_stay() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        reader, writer = await parent.client()
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        (old,) = parent.settings.listeners
        strict = replace(old, rule=replace(old.rule, require_auth=True))
        another = replace(old, name="another")
        parent.sockets.append(listening())
        settings = replace(parent.settings, listeners=(strict, another))
        await parent.order(lambda ticket: Configure(ticket, settings), parent.sockets)
        assert await say(parent, CONNECT, 2) == b"\x05\xff"
        fresh, fresh_writer = await parent.client(1)
        fresh_writer.write(CONNECT + b"?")
        assert await fresh.readexactly(13) == OK + b"?"
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        assert (await parent.report()).accepted == {"test": 2, "another": 1}
        writer.close()
        fresh_writer.close()


async def test_another_part_of_the_pending_circuits_is_followed_at_once() -> None:
    """All parts are of one whole only if no process stays with what it began with."""
    async with SocksPort(silent) as port, parent_of_worker(port) as parent:
        clients = []
        for pending in (2, 3):
            dialer = replace(parent.settings.dialer, max_pending_circuits=pending)
            settings = replace(parent.settings, dialer=dialer)
            await parent.order(lambda ticket, its=settings: Configure(ticket, its), parent.sockets)  # type: ignore[misc]
            for number in range(4):
                _, writer = await parent.client()
                clients.append(writer)
                writer.write(b"\x05\x01\x02\x01\x02u%d\x01p" % number + CONNECT[3:])
            await until(lambda most=pending: len(port.requests) == most)  # type: ignore[misc]
            report = await parent.report()
            assert report.circuits_pending == pending
        for writer in clients:
            writer.close()


async def test_a_drain_ends_the_process_with_its_last_stream() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        reader, writer = await parent.client()
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        await parent.order(lambda ticket: Drain(ticket, 30))
        late, late_writer = await parent.client()
        late_writer.write(CONNECT)
        assert parent.ended == []
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        writer.close()
        await until(lambda: parent.ended)
        assert parent.ended == [0]
        late_writer.close()
        assert late.at_eof() is False


async def test_without_a_parent_it_ends() -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        parent.channel.close()
        await until(lambda: parent.ended)
        assert parent.ended == [0]


@pytest.mark.parametrize("packet", [b".not a pickle", b"."])
async def test_what_it_cannot_read_ends_it(packet: bytes) -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        parent.channel.send(packet)
        await until(lambda: parent.ended)
        assert parent.ended == [1]


def many_flows(monkeypatch: pytest.MonkeyPatch, count: int = 2000) -> None:
    key = Isolator().own_key("a client's")
    flow = FlowView("test", "relaying", key.label, 1.0, 3, 4, carrier=(key, APP))
    monkeypatch.setattr(ToldFlows, "__iter__", lambda told: iter([flow] * count))


async def test_while_many_flows_are_told_of_streams_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        many_flows(monkeypatch)
        loop, turns = asyncio.get_running_loop(), 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not any(said.get("done") == 77 for said in parent.said):
                loop.call_soon(turn)

        parent.tell(StatsRequest(77))
        await until(lambda: any(said.get("part") == 77 for said in parent.said))
        turn()
        await until(lambda: any(said.get("done") == 77 for said in parent.said))
        parts = sum(said.get("part") == 77 for said in parent.said)
        assert parts == 2000 / FLOWS_PER_MESSAGE
        assert turns >= parts / 2, "some came before the first was seen"


async def test_no_turn_makes_the_views_of_all_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        monkeypatch.setattr("isoproxy.workers.report.FLOWS_PER_MESSAGE", 1)
        view, arrived = Connection.view, []

        def viewed(connection: Connection, now: float) -> FlowView:
            arrived.append(sum(said.get("part") == 77 for said in parent.said))
            return view(connection, now)

        monkeypatch.setattr(Connection, "view", viewed)
        writers = [(await parent.client())[1] for _ in range(40)]
        await until_accepted(parent, 40)
        parent.tell(StatsRequest(77))
        await until(lambda: any(said.get("done") == 77 for said in parent.said))
        assert (len(arrived), arrived[-1] > 20) == (40, True)
        for writer in writers:
            writer.close()


async def test_bytes_of_a_stream_that_ends_while_flows_are_told_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with SocksPort() as port, parent_of_worker(port) as parent:
        view = Connection.view
        told: list[Connection] = []

        def viewed(connection: Connection, now: float) -> FlowView:
            for other in told:
                other.abort()
            told.append(connection)
            return view(connection, now)

        monkeypatch.setattr(Connection, "view", viewed)
        writers = []
        for _ in range(2):
            reader, writer = await parent.client()
            writers.append(writer)
            writer.write(CONNECT + b"hello")
            assert await reader.readexactly(17) == OK + b"hello"
        report = await parent.report()
        assert [flow.bytes_down for flow in report.flows] == [5, 5]
        assert report.counters.bytes_down == 0
        after = await parent.order(SumsRequest)
        assert after.counters.bytes_down == 10
        for writer in writers:
            writer.close()


async def test_what_is_asked_often_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages of a report wait until those before them have been taken."""
    monkeypatch.setattr("isoproxy.workers.channel.MAX_QUEUED", 64)
    async with SocksPort() as port, parent_of_worker(port) as parent:
        many_flows(monkeypatch)
        for ticket in range(100, 116):
            parent.tell(StatsRequest(ticket))
        await until(lambda: sum(said.get("done", 0) >= 100 for said in parent.said) == 16)
        assert parent.ended == []


async def test_no_flow_is_told_of_where_none_was_asked_for() -> None:
    """What others wait for is short: a new epoch, other settings; bytes count all the same."""
    async with SocksPort() as port, parent_of_worker(port) as parent:
        reader, writer = await parent.client()
        writer.write(CONNECT + b"hello")
        assert await reader.readexactly(17) == OK + b"hello"
        state = parent.isolator.export_state()
        report = await parent.order(lambda ticket: Epoch(ticket, state))
        assert (report.flows, report.counters.bytes_down) == ([], 5)
        report = await parent.report()
        assert ([flow.bytes_down for flow in report.flows], report.counters.bytes_down) == ([5], 0)
        writer.close()


async def test_an_answer_from_before_a_new_epoch_opens_nothing() -> None:
    """Whether the answer comes after the order, or just before it."""
    async with SocksPort() as port, parent_of_worker(port) as parent:
        for count, late in enumerate((True, False), 1):
            reader, writer = await parent.client()
            writer.write(BIT)
            question = await parent.asked("name", count)
            reply = NameReply(question["number"], Target.parse("192.0.2.1", 80))
            if not late:
                parent.tell(reply)
            parent.isolator.new_epoch()
            state = parent.isolator.export_state()
            parent.tell(Epoch(100 + count, state))
            if late:
                parent.tell(reply)
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert answer[:3] == b"\x05\x00\x05"
            assert answer[3] != 0
            writer.close()
        assert port.requests == []
        assert (await parent.report()).counters.opened == 0
