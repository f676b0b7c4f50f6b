"""Running processes: the far end, the proxies, and what they cost.

CPU time is that of a process with all its threads (ended ones too) and its descendants, from
/proc/PID/stat: ticks of 10 ms.  Memory is PSS from smaps_rollup: user space only, shared pages
divided among those who share them.  Kernel memory of sockets is not in it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import programs

_Tail = Callable[[], str]
_START_SECONDS: Final = 20.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_FIRST_PORT, _LAST_PORT = 10000, 30000
"""Below the ephemeral ports, which other connections take."""


class StartError(Exception):
    """A process did not start to listen; the text holds the end of its output."""


@dataclass(frozen=True)
class FarEnd:
    """Where the running server listens: its services, and its stand-in for a SocksPort."""

    base_port: int
    socks: str
    socks_unix: str
    pid: int


@contextlib.contextmanager
def far_end(directory: Path) -> Iterator[FarEnd]:
    """Run the server of server.c at ports that are free."""
    program = str(programs.server())
    for _ in range(20):
        base = random.randrange(_FIRST_PORT, _LAST_PORT)
        socks, socks_unix = f"127.0.0.1:{base + 9}", f"unix:{directory}/socks"
        process = subprocess.Popen(
            [program, str(base), socks, socks_unix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with process:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                continue
            try:
                yield FarEnd(base, socks, socks_unix, process.pid)
            finally:
                process.kill()
            return
    raise StartError("no free ports for the far end")


@contextlib.contextmanager
def proxy(command: list[str], listen: tuple[str, int]) -> Iterator[int]:
    """Run a proxy until it accepts connections at `listen`; gives its process ID."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(process, listen, command, lambda: _tail(output.fileno()))
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_address() -> tuple[str, int]:
    """A loopback address nobody listens at."""
    while True:
        address = ("127.0.0.1", random.randrange(_FIRST_PORT, _LAST_PORT))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError:
                continue
            return address


@contextlib.contextmanager
def on_one_core(pids: Iterable[int]) -> Iterator[None]:
    """Keep these processes, and those started meanwhile, on one and the same core."""
    everywhere = os.sched_getaffinity(0)
    threads = [0, *(thread for pid in pids for thread in _threads_of_all(pid))]
    _confine(threads, {min(everywhere)})
    try:
        yield
    finally:
        _confine(threads, everywhere)


def _confine(threads: Iterable[int], cores: set[int]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def _threads_of_all(pid: int) -> list[int]:
    """The threads of a process and of its living descendants."""
    return _threads(pid) + [one for child in _children(pid) for one in _threads_of_all(child)]


def _threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def cpu_seconds(pid: int) -> float:
    """CPU time so far of a process, its threads, its ended and its living descendants."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = sum(int(fields[i]) for i in (11, 12, 13, 14))
    return ticks / _TICKS + sum(cpu_seconds(child) for child in _children(pid))


def pss_kilobytes(pid: int) -> float:
    """Proportional set size in kB (1024 bytes) of a process and its living descendants."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            own = float(line.split()[1])
            return own + sum(pss_kilobytes(child) for child in _children(pid))
    raise OSError(f"no Pss in smaps_rollup of process {pid}")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended since
            found += map(int, (task / "children").read_text().split())
    return found


def _wait_for(
    process: subprocess.Popen[bytes],
    listen: tuple[str, int],
    command: list[str],
    output_tail: _Tail,
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(listen, 1).close()
            return
        time.sleep(0.05)
    raise StartError(f"{Path(command[0]).name} does not listen:\n{output_tail()}")


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, 2000, max(0, size - 2000)).decode(errors="replace")
