"""Streams of the real tor as a controller sees them: their events, and the program `stemns`.

`StreamEvents` follows what happens to every stream.  `stemns_command` and `stemns_with` start the
program that attaches streams; it prints `SERVING` when it does, which `serving` waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from tests.kit.tornet import Node

SERVING: Final = b"stemns: streams are served\n"


class StreamEvents:
    """Every byte of a connection that follows STREAM events, with the time of each line.

    Nothing is asked after the beginning: names that forge lines cannot confuse it.
    """

    def __init__(self, node: Node) -> None:
        self.lines: list[tuple[float, str]] = []
        """Lines without their ends, and when they came (`time.perf_counter`)."""
        self._socket = authenticated(node.control_path, node.cookie)
        self._socket.sendall(b"SETEVENTS STREAM\r\n")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def moments(self, start: int, status: str) -> dict[int, float]:
        """When each stream was first reported with `status`, from line number `start` on."""
        found: dict[int, float] = {}
        for moment, line in self.lines[start:]:
            words = line.split(" ", 4)
            if words[:2] == ["650", "STREAM"] and words[3:4] == [status]:
                found.setdefault(int(words[2]), moment)
        return found

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            for line in stream:
                self.lines.append((time.perf_counter(), line.decode("latin-1").rstrip("\r\n")))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()


def authenticated(control_path: str, cookie_file: str) -> socket.socket:
    """A control connection; the reply to AUTHENTICATE is still to be read from it."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(control_path)
    cookie = Path(cookie_file).read_bytes().hex()
    control.sendall(f"AUTHENTICATE {cookie}\r\n".encode())
    return control


def stemns_command(directory: Path, node: Node, hosts: str = "") -> list[str]:
    """The program for `node`, with our plugin and a hosts file as another process.

    Its settings and the hosts file are written into `directory`.
    """
    (directory / "hosts").write_text(hosts)
    plugin = [sys.executable, "-m", "prop279", "--hosts", str(directory / "hosts")]
    return stemns_with(plugin, directory, node)


def stemns_with(plugin: Sequence[str], directory: Path, node: Node) -> list[str]:
    """The program for `node`, with this plugin for `.bit` and `.pet.onion`."""
    plugin = list(plugin)
    (directory / "s.toml").write_text(
        f"[stemns]\ncontrol = 'unix:{node.control_path}'\nallow_private_addresses = true\n"
        f"[services]\nbit = {plugin!r}\n'pet.onion' = {plugin!r}\n"
    )
    return [sys.executable, "-m", "stemns_plugin", "-c", str(directory / "s.toml")]


@contextlib.asynccontextmanager
async def serving(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program as a process, from when it serves; it is asked to end at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line == SERVING
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 10)
