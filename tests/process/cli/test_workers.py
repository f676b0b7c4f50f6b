"""`isoproxy run` with its stream processes, as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from isoproxy.admin.client import ask
from tests.kit.service import Service, connect, running, system_tor
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until

AT_A_TIME = 40
LOGIN = ("names.rpc.username=user", "names.rpc.password=pass")
STREAM = b"\x05\x01\x02\x01\x01u\x01p\x05\x01\x00\x03\x0bexample.com\x00\x50"


async def status_of(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await service.ask("status", "--json")).out)
    return answer


async def workers_of(service: Service) -> list[int]:
    """The process IDs of both stream processes, once they serve."""
    async with asyncio.timeout(60):
        while True:
            workers = (await status_of(service))["workers"]
            if len(workers) == 2 and all(worker["serving"] for worker in workers):
                return [worker["pid"] for worker in workers]


async def served(service: Service) -> dict[int, int]:
    """How many clients each stream process has accepted, by its process ID."""
    status = await asyncio.to_thread(ask, service.directory / "run" / "admin", "status")
    return {worker["pid"]: worker["accepted"] for worker in status["workers"]}


async def visit_all(service: Service, visit: Callable[[socket.socket], Awaitable[None]]) -> int:
    """Have clients come until each stream process has served some; how many came.

    They come at one moment, as fast as the kernel takes them: who is awake then gets one.
    """
    before, came = await served(service), 0
    async with asyncio.timeout(60):
        while True:
            clients = []
            for _ in range(AT_A_TIME):
                clients.append(socket.socket())
                clients[-1].setblocking(False)
                clients[-1].connect_ex(("127.0.0.1", service.port()))
            await asyncio.gather(*map(visit, clients))
            came += AT_A_TIME
            now = await served(service)
            if all(now[pid] > then for pid, then in before.items()):
                return came


async def echo(client: socket.socket, opening: bytes = STREAM) -> None:
    """Open a stream by SOCKS, as always the same user, and have a byte echoed."""
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        writer.write(opening + b"!")
        assert await reader.readexactly(15) == b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6) + b"!"
    finally:
        writer.close()


async def be_refused(client: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=client)
    writer.write(b"\x05\x01\x00")
    assert await reader.read(2) == b"\x05\xff"
    writer.close()


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_status_and_metrics_are_those_of_all_processes(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor), workers=2) as service:
        await workers_of(service)
        came = await visit_all(service, echo)
        status = await status_of(service)
        assert status["listeners"][0]["accepted"] == came
        assert status["counters"]["opened"] == came
        metrics = (await asyncio.to_thread(ask, tmp_path / "run" / "admin", "metrics"))[
            "exposition"
        ]
        (line,) = (
            line
            for line in metrics.splitlines()
            if line.startswith("isoproxy_requests_total") and 'command="connect"' in line
        )
        assert line.split()[-1] == str(came)
        assert await service.stop() == 0


async def test_all_processes_use_the_new_epoch_once_newnym_has_answered(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor), workers=2) as service:
        await workers_of(service)
        used: list[set[bytes | None]] = []
        for _ in range(3):
            tor.requests.clear()
            await visit_all(service, echo)
            used.append({r.password for r in tor.requests if r.host == b"example.com"})
            assert (await service.ask("newnym")).code == 0
        assert [len(passwords) for passwords in used] == [1, 1, 1]
        assert len(set.union(*used)) == 3
        assert await service.stop() == 0


async def test_one_identity_is_renewed_in_all_processes_and_no_other(tmp_path: Path) -> None:
    async def as_user(user: bytes, client: socket.socket) -> None:
        await echo(client, STREAM.replace(b"\x01u", b"\x01" + user))

    async with SocksPort() as tor, running(tmp_path, *system_tor(tor), workers=2) as service:
        await workers_of(service)
        used: dict[bytes, list[set[bytes | None]]] = {b"u": [], b"v": []}
        for _ in range(3):
            for user, sets in used.items():
                tor.requests.clear()
                await visit_all(service, partial(as_user, user))
                sets.append({r.password for r in tor.requests if r.host == b"example.com"})
            label = json.loads((await service.ask("explain", "u", "p", "--json")).out)["key"]
            renewed = await service.ask("newnym", label)
            assert (renewed.code, renewed.err) == (0, "")
            again = await service.ask("newnym", label)
            assert (again.code, "already" in again.err) == (1, True)
        assert [len(passwords) for passwords in used[b"u"]] == [1, 1, 1]
        assert len(set.union(*used[b"u"])) == 3
        assert len(set.union(*used[b"v"])) == 1
        assert await service.stop() == 0


async def test_workers_end_with_the_main_process_even_if_it_is_killed(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor), workers=2) as service:
        workers = await workers_of(service)
        service.process.send_signal(signal.SIGKILL)
        await service.process.wait()
        await until(lambda: not any(map(runs, workers)), 30)


async def test_a_reload_reaches_the_workers(tmp_path: Path) -> None:
    file = tmp_path / "isoproxy.toml"
    listener = '[[listener]]\naddress = "127.0.0.1:0"\n'
    file.write_text(listener)
    async with SocksPort() as tor:
        settings = ["tor.mode=system", f"tor.socks={tor.endpoint}", "tor.control=none"]
        words = ["-c", str(file), *(w for setting in settings for w in ("--set", setting))]
        async with running(tmp_path, *words, workers=2) as service:
            await workers_of(service)
            file.write_text(listener + "require_auth = true\n")
            service.process.send_signal(signal.SIGHUP)
            await service.logged("event=reloaded")
            await visit_all(service, be_refused)
            assert await service.stop() == 0


async def test_one_stream_process_is_enough_where_that_is_asked_for(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor), workers=1) as service:
        reader, writer = await connect(service.port())
        await reader.readexactly(10)
        (worker,) = (await status_of(service))["workers"]
        assert (worker["serving"], worker["accepted"]) == (True, 1)
        assert worker["pid"] != service.process.pid
        writer.close()
        assert await service.stop() == 0


async def test_streams_go_on_while_the_main_process_does_nothing(tmp_path: Path) -> None:
    """It is stopped: no stream waits for it, and a name of ours is still sent to nobody."""
    names = ("names.backend=namecoin-core", "names.rpc.address=127.0.0.1:9", *LOGIN)
    async with (
        SocksPort() as tor,
        running(tmp_path, *system_tor(tor, *names), workers=2) as service,
    ):
        await workers_of(service)
        service.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(10):
                reader, writer = await connect(service.port())
                assert (await reader.readexactly(10))[1] == 0
                writer.write(b"!")
                assert await reader.readexactly(1) == b"!"
                writer.close()
            asked = len(tor.requests)
            reader, writer = await connect(service.port(), host=b"example.bit")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await reader.read(1)
            assert len(tor.requests) == asked
        finally:
            service.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            assert (await reader.readexactly(2))[1] != 0
        writer.close()
        assert len(tor.requests) == asked
        assert await service.stop() == 0


async def test_a_process_that_dies_in_a_drain_does_not_hold_it_up(tmp_path: Path) -> None:
    settings = ["limits.drain_timeout_s=3600"]
    async with (
        SocksPort() as tor,
        running(tmp_path, *system_tor(tor, *settings), workers=2) as service,
    ):
        pids = await workers_of(service)
        streams = [await connect(service.port()) for _ in range(8)]
        for reader, _ in streams:
            await reader.readexactly(10)
        service.process.send_signal(signal.SIGTERM)
        await service.logged("event=stopping flows=8")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it had no stream
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await service.process.wait() == 0
        assert "event=worker_ended" not in service.text()
        for _, writer in streams:
            writer.close()
