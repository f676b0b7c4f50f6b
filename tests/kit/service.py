"""The real `isoproxy` process, started for a test and always stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.kit.socks_port import SocksPort
from tests.kit.tornet import Node

DEADLINE_S = 30.0
HELLO: Final = b"\x05\x01\x02"
"""A SOCKS5 client that has a user name."""
DIAL_S = 90.0
"""For a stream through a network that may have to find its relays first."""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(directory: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which isoproxy keeps everything below `directory`."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        # So that coverage measures what runs in the process, too.
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # What is left open is said; all of development mode makes a start half as long again.
        "PYTHONWARNINGS": "default",
        # What is installed on this machine is another one's.
        "CONFIGURATION_DIRECTORY": str(directory / "etc"),
        "STATE_DIRECTORY": str(directory / "state"),
        "RUNTIME_DIRECTORY": str(directory / "run"),
        **(more or {}),
    }


async def command(
    directory: Path,
    *arguments: str,
    more: Mapping[str, str] | None = None,
    given: bytes | None = None,
) -> Outcome:
    """Run one `isoproxy` command to its end, with `given` as its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isoproxy", *arguments),
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(directory, more),
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def dial(directory: Path, *words: str, send: bytes = b"", hold: bool = False) -> Outcome:
    """`isoproxy dial` with `send` as its input; with `hold` that stays open until the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isoproxy", "dial", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(directory),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DIAL_S):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(send)
                await process.stdin.drain()
            if not hold:
                process.stdin.close()
            out = await process.stdout.read()
            err = await process.stderr.read()
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()
    return Outcome(code, out.decode(), err.decode())


@dataclass
class Service:
    """A running `isoproxy run`."""

    directory: Path
    process: asyncio.subprocess.Process
    listening: list[str] = field(default_factory=list)
    log: Path = Path()

    def port(self, index: int = 0) -> int:
        """The TCP port of a listener, in the order they were announced."""
        return int(self.listening[index].split()[2].rpartition(":")[2])

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text()

    async def ask(self, *arguments: str, given: bytes | None = None) -> Outcome:
        """Run another command against this service."""
        return await command(self.directory, *arguments, given=given)

    async def logged(self, text: str) -> None:
        """Wait until the log holds `text`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if text in self.text():
                    return
                await asyncio.sleep(0.02)

    async def line(self) -> str:
        """The next line on standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    *arguments: str,
    run: Sequence[str] = ("run",),
    listeners: int = 1,
    workers: int | None = 1,
    more: Mapping[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> AsyncIterator[Service]:
    """`isoproxy run`, or another command that serves, once it announced `listeners` listeners.

    Without names, unless `arguments` set names.backend.  One stream process starts sooner than
    two; with `workers` None there are as many as the configuration says.
    """
    streams = () if workers is None else ("--set", f"limits.workers={workers}")
    log = directory / "log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isoproxy", *run),
            *("--set", "names.backend=none", *streams, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment(directory, more),
            pass_fds=pass_fds,
        )
    service = Service(directory, process, log=log)
    try:
        for _ in range(listeners):
            line = await service.line()
            assert line.startswith("listening "), service.text()
            service.listening.append(line)
        yield service
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def through(client: Node) -> list[str]:
    """Settings of an isoproxy in front of a client's tor."""
    settings = [
        "tor.mode=system",
        f"tor.socks=unix:{client.socks_path}",
        f"tor.control=unix:{client.control_path}",
        "listener.0.address=127.0.0.1:0",
    ]
    return [word for setting in settings for word in ("--set", setting)]


def system_tor(port: SocksPort, *more: str) -> list[str]:
    """Settings for a service whose Tor is `port`."""
    settings = [
        "tor.mode=system",
        f"tor.socks={port.endpoint}",
        "tor.control=none",
        "listener.0.address=127.0.0.1:0",
        *more,
    ]
    return [word for setting in settings for word in ("--set", setting)]


async def connect(
    port: int,
    *,
    user: bytes = b"u",
    password: bytes = b"p",
    host: bytes = b"example.com",
    dest: int = 80,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A SOCKS5 client by hand, up to its reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    login = b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password
    request = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + dest.to_bytes(2, "big")
    writer.write(HELLO + login + request)
    assert await reader.readexactly(4) == b"\x05\x02\x01\x00"
    return reader, writer


async def echoes(
    service: Service,
    *,
    user: bytes = b"u",
    password: bytes = b"p",
    host: bytes = b"example.com",
) -> bool:
    """Whether a stream opens and carries bytes there and back."""
    reader, writer = await connect(service.port(), user=user, password=password, host=host)
    try:
        if (await reader.readexactly(10))[1] != 0:
            return False
        writer.write(b"hello")
        return await reader.readexactly(5) == b"hello"
    finally:
        writer.close()


@dataclass
class Published:
    """A running `isoproxy publish`."""

    process: asyncio.subprocess.Process
    address: str
    multiaddr: str


@contextlib.asynccontextmanager
async def publishing(directory: Path, client: Node, *words: str) -> AsyncIterator[Published]:
    """`isoproxy publish` through a client's tor, once it has printed its address."""
    settings = ("--set", "tor.mode=system", "--set", f"tor.control=unix:{client.control_path}")
    with (directory / "publish.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isoproxy", "publish", *settings, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(directory),
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DIAL_S):
            line = (await process.stdout.readline()).decode().split()
        assert len(line) == 2, (directory / "publish.log").read_text()
        yield Published(process, *line)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
