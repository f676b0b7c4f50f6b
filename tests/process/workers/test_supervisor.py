"""A front end with a real worker process beside it, over a scripted SocksPort.

The main process of these tests watches no listening socket itself, so that every client
comes to the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, NamingError, socks_reply_code
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.services import Limits
from isoproxy.isolation import (
    APP,
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    client_of_address,
    upstream_credentials,
)
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.socks import encode_reply
from isoproxy.workers import supervisor as module
from isoproxy.workers.messages import Settings, rest_of, share_of
from isoproxy.workers.supervisor import Workers
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until as soon
from tests.unit.front.test_frontend import CONNECT, OK, client_of, front_end, say

until: Final = partial(soon, seconds=60)
MAINS_PORT: Final = 8333
BIT: Final = b"\x05\x01\x00\x05\x01\x00\x03\x05d.bit\x00\x50"
TO_MAIN: Final = CONNECT[:-2] + MAINS_PORT.to_bytes(2, "big")


class Names:
    """Every name is an address; says under which keys it was asked."""

    def __init__(self) -> None:
        self.keys: list[IsolationKey] = []

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        self.keys.append(key)
        if target.host != "d.bit":
            raise NamingError
        return Target.parse("192.0.2.1", target.port)


@asynccontextmanager
async def worker_beside(
    port: SocksPort, *, limits: Limits | None = None, names: Names | None = None
) -> AsyncIterator[tuple[FrontEnd, Workers]]:
    """A front end and one worker, which serves; afterwards the worker is gone."""
    whole = limits or Limits()
    async with front_end(port, limits=rest_of(whole, 2), names=names) as front:

        def settings() -> Settings:
            return Settings(
                tuple(listener.settings for listener in front.listeners.values()),
                share_of(whole, 2),
                front.dialer.settings,
                frozenset({MAINS_PORT}),
                ("notice", "text", True),
            )

        front.reactor.unregister(front.listeners["test"].socket.fileno())
        workers = Workers(front, 1, settings)
        workers.start()
        try:
            await until(lambda: any(one["serving"] for one in workers.processes()))
            yield front, workers
        finally:
            pids = [pid_of(workers)] if workers.running else []
            await workers.drain(0)
            assert not any(map(runs, pids))


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def pid_of(workers: Workers) -> int:
    (process,) = workers.processes()
    assert isinstance(process["pid"], int)
    return process["pid"]


def credentials_here(front: FrontEnd) -> tuple[bytes, bytes]:
    """What this process derives for a client on loopback that says nothing of itself."""
    client = client_of_address("127.0.0.1")
    stream = IsolationTuple(client, ClientProtocol.SOCKS5, dest_host=b"a.test", dest_port=80)
    key = front.isolator.key_for(front.listeners["test"].rule.listener, stream)
    credentials = upstream_credentials(key, APP)
    return credentials.username, credentials.password


async def test_a_worker_serves_with_the_keys_of_the_main_process() -> None:
    async with SocksPort() as port, worker_beside(port) as (front, _):
        assert await say(front, CONNECT + b"hello") == OK + b"hello"
        assert len(front.connections) == front.counters.opened == 0
        (asked,) = port.requests
        assert (asked.username, asked.password) == credentials_here(front)


async def test_nothing_is_run_from_the_folder_that_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    async with SocksPort() as port, worker_beside(port) as (front, _):
        assert await say(front, CONNECT + b"hello") == OK + b"hello"
    assert os.listdir(tmp_path) == ["pickle.py"]


async def test_what_it_counts_is_told() -> None:
    async with SocksPort() as port, worker_beside(port) as (front, workers):
        assert await say(front, CONNECT + b"hello") == OK + b"hello"
        assert await say(front, b"\x05\x01\x09") == b"\x05\xff"
        reader, writer = await client_of(front)
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        report = await workers.report()
        assert report.accepted == {"test": 3}
        assert (report.counters.opened, report.counters.bytes_down) == (2, 5)
        assert report.counters.refusals.total() == 1
        assert sum(report.counters.dials.counts) == report.counters.handshakes.total() - 1 == 2
        (flow,) = report.flows
        assert (flow.listener, flow.stage, flow.bytes_down) == ("test", "relaying", 1)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("pause", [0, 0.005])
async def test_a_name_of_ours_is_for_the_main_process(pause: float) -> None:
    names = Names()
    async with SocksPort() as port, worker_beside(port, names=names) as (front, workers):
        reader, writer = await client_of(front)
        for byte in BIT + b"early":
            writer.write(bytes((byte,)))
            await asyncio.sleep(pause)
        assert await reader.readexactly(17) == OK + b"early"
        assert len(front.connections) == front.counters.opened == 1
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert [request.host for request in port.requests] == [b"192.0.2.1"]
        assert all(front.isolator.is_current(key) for key in names.keys)
        report = await workers.report()
        assert (report.counters.opened, report.accepted) == (0, {"test": 1})
        assert front.counters.handshakes.total() == 1
        assert not report.counters.handshakes
        assert not front.accepted


async def test_a_client_is_not_taken_for_one_of_a_place_that_has_the_name_by_now() -> None:
    """A reload gave the listener's name away between the greeting and the request."""
    names = Names()
    async with SocksPort() as port, worker_beside(port, names=names) as (front, _):
        reader, writer = await client_of(front)
        writer.write(BIT[:3])
        assert await reader.readexactly(2) == b"\x05\x00"
        listener = front.listeners["test"]
        listener.settings = replace(listener.settings, endpoint=Endpoint.tcp("127.0.0.1", 1))
        writer.write(BIT[3:])
        assert await reader.read(1) == b""
        assert names.keys == []
        writer.close()


async def test_ports_of_the_main_process_are_for_it() -> None:
    async with SocksPort() as port, worker_beside(port) as (front, _):
        assert await say(front, TO_MAIN + b"hey") == OK + b"hey"
        assert front.counters.opened == 1


async def test_a_client_that_was_handed_over_and_ends_is_noticed() -> None:
    names = Names()
    async with SocksPort() as port, worker_beside(port, names=names) as (front, _):
        assert await say(front, BIT + b"hey") == OK + b"hey"
        await until(lambda: not front.connections)


async def test_once_settled_no_worker_uses_the_old_epoch() -> None:
    async with SocksPort() as port, worker_beside(port) as (front, workers):
        used = set()
        for _ in range(3):
            assert await say(front, CONNECT + b"x") == OK + b"x"
            assert port.requests[-1].password == credentials_here(front)[1]
            used.add(port.requests[-1].password)
            front.isolator.new_epoch()
            await workers.settled()
        assert len(used) == 3


async def test_a_worker_that_does_not_answer_a_new_epoch_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with SocksPort() as port, worker_beside(port) as (front, workers):
        monkeypatch.setattr(module, "ANSWER_S", 0.3)
        stuck = pid_of(workers)
        os.kill(stuck, signal.SIGSTOP)
        front.isolator.new_epoch()
        await workers.settled()
        monkeypatch.undo()
        await until(lambda: not runs(stuck))
        await until(lambda: any(one["serving"] for one in workers.processes()))
        assert await say(front, CONNECT + b"x") == OK + b"x"
        assert port.requests[-1].password == credentials_here(front)[1]


async def test_a_worker_that_dies_is_replaced_and_its_counts_stay() -> None:
    async with SocksPort() as port, worker_beside(port) as (front, workers):
        assert await say(front, CONNECT + b"x") == OK + b"x"
        assert (await workers.report()).counters.opened == 1
        first = pid_of(workers)
        os.kill(first, signal.SIGKILL)
        await until(lambda: any(one["serving"] for one in workers.processes()))
        await until(lambda: workers.running and pid_of(workers) != first)
        await until(lambda: any(one["serving"] for one in workers.processes()))
        assert await say(front, CONNECT + b"x") == OK + b"x"
        assert (await workers.report()).counters.opened == 2


async def test_one_that_has_not_begun_to_serve_is_gone_when_all_have_left() -> None:
    async with SocksPort() as port, front_end(port) as front:

        def settings() -> Settings:
            listeners = tuple(listener.settings for listener in front.listeners.values())
            log = ("notice", "text", True)
            return Settings(listeners, Limits(), front.dialer.settings, frozenset(), log)

        workers = Workers(front, 1, settings)
        workers.start()
        await until(lambda: workers.running)
        pid = pid_of(workers)
        assert [one["serving"] for one in workers.processes()] == [False]
        await workers.leave(0)
        assert not runs(pid)
        await workers.drain(0)


async def test_a_worker_keeps_to_its_part_of_the_budgets() -> None:
    limits = Limits(max_connections=1000, max_connections_per_client=128)
    async with SocksPort() as port, worker_beside(port, limits=limits) as (front, workers):
        clients = [await client_of(front) for _ in range(66)]
        await until_accepted(workers, 66)
        refused = sum([await is_refused(reader) for reader, _ in clients])
        assert refused == 2
        for _, writer in clients:
            writer.close()


async def test_a_client_for_whom_the_main_process_has_no_room_is_told() -> None:
    limits = Limits(max_connections=1000, max_connections_per_client=128)
    names = Names()
    async with SocksPort() as port, worker_beside(port, limits=limits, names=names) as (front, _):
        clients = [await client_of(front) for _ in range(64)]
        for _, writer in clients:
            writer.write(BIT)
        await until(lambda: len(front.connections) == 64)
        refusal = encode_reply(socks_reply_code(ErrorKind.BUSY, extended=True))
        assert await say(front, BIT) == b"\x05\x00" + refusal
        for _, writer in clients:
            writer.close()


async def test_a_client_for_whom_the_main_process_has_no_descriptor_ends_alone() -> None:
    async with SocksPort() as port, worker_beside(port, names=Names()) as (front, _):
        reader, writer = await client_of(front)
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        unlucky, unlucky_writer = await client_of(front)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            unlucky_writer.write(BIT)
            with contextlib.suppress(ConnectionResetError):
                assert await unlucky.read() == b"\x05\x00"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        unlucky_writer.close()
        writer.write(b"others notice nothing")
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            heard = await reader.read(21)
        assert heard == b"others notice nothing"
        assert front.counters.fd_exhaustion == 1
        writer.close()
        assert await say(front, BIT + b"hey") == OK + b"hey"


async def until_accepted(workers: Workers, count: int) -> None:
    async with asyncio.timeout(30):
        while (await workers.report()).accepted["test"] < count:  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0.02)


async def is_refused(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.02):
            return await reader.read(2) == b"\x05\xff"
    except TimeoutError:
        return False


async def test_other_settings_are_served_by_and_connections_stay() -> None:
    async with SocksPort() as port, worker_beside(port) as (front, workers):
        reader, writer = await client_of(front)
        writer.write(CONNECT + b"!")
        assert await reader.readexactly(13) == OK + b"!"
        listener = front.listeners["test"]
        listener.settings = replace(
            listener.settings, rule=replace(listener.settings.rule, require_auth=True)
        )
        workers.configure()
        await workers.report()
        assert await say(front, CONNECT) == b"\x05\xff"
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        writer.close()
        await writer.wait_closed()


@given(st.integers(1, 1_000_000), st.integers(1, 1_000_000), st.integers(2, 64))
def test_the_parts_of_the_budgets_are_the_whole(total: int, each: int, processes: int) -> None:
    limits = Limits(max_connections=total, max_connections_per_client=each)
    share, rest = share_of(limits, processes), rest_of(limits, processes)
    others = processes - 1
    assert rest.max_connections + others * share.max_connections == total
    assert rest.max_connections_per_client + others * share.max_connections_per_client == each
    assert rest.max_connections >= share.max_connections >= 0


@pytest.mark.parametrize(
    "nonsense", [b"[]", b'{"client": ["test", "here"], "heard": ""}', b'{"done": 1}']
)
async def test_a_worker_that_talks_nonsense_is_ended(nonsense: bytes) -> None:
    async with SocksPort() as port, worker_beside(port) as (_, workers):
        (process,) = workers.running
        process._on_message(nonsense, [])
        await until(lambda: workers.running and process not in workers.running)
