"""Listening sockets of a real process: reloaded in a storm, inherited, and accepted on by whom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from tests.kit.ports import free_port
from tests.kit.service import Service, connect, environment, running, system_tor
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.process.cli.test_workers import workers_of

HANGUPS = 200


async def echoes(port: int) -> bool:
    """Whether a client of `port` gets a stream that carries bytes there and back."""
    reader, writer = await connect(port)
    try:
        assert (await reader.readexactly(10))[1] == 0
        writer.write(b"hello")
        return await reader.readexactly(5) == b"hello"
    finally:
        writer.close()


async def at_rest(service: Service) -> None:
    """Wait until no reload has come to an end for a second."""
    before = -1
    async with asyncio.timeout(60):
        while (now := service.text().count("event=reload")) != before:
            before = now
            await asyncio.sleep(1)


async def test_of_many_hangups_at_once_the_last_configuration_is_served(tmp_path: Path) -> None:
    """A listener that comes and goes is there in the end, and served by every process."""
    stays, comes_and_goes = free_port(), free_port()
    file, draft = tmp_path / "isoproxy.toml", tmp_path / "draft"
    async with SocksPort() as tor:
        without = (
            f'[tor]\nmode="system"\nsocks="{tor.endpoint}"\ncontrol="none"\n'
            f'[[listener]]\naddress="127.0.0.1:{stays}"\n'
        )
        with_it = f'{without}[[listener]]\naddress="127.0.0.1:{comes_and_goes}"\n'
        file.write_text(with_it)
        async with running(tmp_path, "-c", str(file), listeners=2, workers=2) as service:
            reader, writer = await connect(comes_and_goes)
            await reader.readexactly(10)
            await workers_of(service)
            processes = [service.process.pid, *children(service.process.pid)]
            before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in processes]
            for number in range(1, HANGUPS + 1):
                draft.write_text(without if number % 2 else with_it)
                draft.replace(file)
                service.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(number % 8 / 1000 if number % 20 else 0.2)
            await at_rest(service)
            assert "event=reload_refused" not in service.text()
            assert processes == [service.process.pid, *children(service.process.pid)]
            assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in processes] == before
            async with asyncio.timeout(20):
                for _ in range(20):
                    assert await echoes(comes_and_goes)
                    assert await echoes(stays)
            writer.write(b"since before")
            assert await reader.readexactly(12) == b"since before"
            writer.close()
            file.write_text(without)
            service.process.send_signal(signal.SIGHUP)
            await at_rest(service)
            with contextlib.suppress(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", comes_and_goes)
                raise AssertionError("somebody still listens there")
            assert await echoes(stays)
            assert await service.stop() == 0


async def test_both_sockets_of_one_unit_are_served_and_not_by_the_main_process(
    tmp_path: Path,
) -> None:
    """Two ListenStream= lines; the shell stands for the service manager."""
    inherited = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in inherited]
    script = (
        f"exec 3<&{inherited[0].fileno()} 4<&{inherited[1].fileno()}; export LISTEN_PID=$$ "
        'LISTEN_FDS=2 LISTEN_FDNAMES=socks-default:socks-default; exec "$0" "$@"'
    )
    async with SocksPort() as tor:
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", script, sys.executable, "-m", "isoproxy", "run"),
                *("--set", "names.backend=none"),
                *system_tor(tor, "listener.0.address=127.0.0.1:1"),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                env=environment(tmp_path),
                pass_fds=[sock.fileno() for sock in inherited],
            )
        for sock in inherited:
            sock.close()
        try:
            await until(lambda: "event=tor_answers" in (tmp_path / "log").read_text(), seconds=30)
            for _ in range(2):
                clients = [await connect(port) for port in ports for _ in range(4)]
                for reader, _ in clients:
                    assert (await reader.readexactly(10))[1] == 0
                assert connections(process.pid, ports) == 0
                assert sum(connections(child, ports) for child in children(process.pid)) == 8
                for _, writer in clients:
                    writer.close()
                process.send_signal(signal.SIGHUP)
                await until(lambda: "event=reloaded" in (tmp_path / "log").read_text(), seconds=30)
        finally:
            process.kill()
            await process.wait()


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def connections(pid: int, ports: list[int]) -> int:
    """How many connections to local `ports` a process has open."""
    mine = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            mine.add(os.readlink(entry.path))
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        is_here = int(local.rpartition(":")[2], 16) in ports
        count += is_here and state == "01" and f"socket:[{inode}]" in mine
    return count
