"""Whether a hostile name server can be felt in the streams of others: `python -m benchmarks.flood`.

One of three name servers sends notifications that nobody asked for, at `--rate` MB/s over
every connection that isoproxy has to it.  Meanwhile other identities connect and have a few
bytes echoed: to an address, and to a `.bit` name, the latter from the moment at which the
answer for the name was there.  The same streams are measured *undisturbed*: a program that is
not isoproxy reads the same lines from the same server, as many a second as isoproxy took and
over as many connections, so that the machine is as busy.

Either kind of streams, with one stream process and with two, must have p50 and p99 within
10 % and 1 ms of undisturbed.  isoproxy runs as a program with a configuration, freshly started
for each run, and the two kinds of runs take turns.  `--tree` measures another tree, with the
virtual environment in it.  There is no Tor: what is measured is our processes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import flood_world
from benchmarks.flood_world import ADDRESS, CALM, HOSTS, MOMENT, NAME, PORT, PROXY, READER
from benchmarks.running import cpu_seconds
from isoproxy.client import create_connection
from isoproxy.errors import DialError
from tests.kit.repository import ROOT

FACTOR, MARGIN_S = 1.10, 0.001
"""What may be added to undisturbed: 10 % and 1 ms."""
WARM: Final = [f"warm{number}" for number in range(16)]
"""Identities whose name is answered before the flood."""
PAUSE_S: Final = 0.003
FEWEST: Final = 20
"""Streams of each run, however long they take."""
START_S: Final = 60.0
_fork: Final = multiprocessing.get_context("fork")


@dataclass
class Times:
    """The s that streams took, of both kinds, and what the programs used meanwhile."""

    plain: list[float] = field(default_factory=list)
    named: list[float] = field(default_factory=list)
    proxy_cpu: float = 0.0
    reader_cpu: float = 0.0
    flooded: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Flood:
    """Whom the hostile server floods, over how many connections, and how fast over each."""

    side: str
    bytes_per_s: float
    connections: int = 0


class World:
    """The stand-in for Tor and the name servers, ended with the block."""

    def __init__(self) -> None:
        self._tor = socket.create_server(("127.0.0.1", 0))
        self._flooder = socket.create_server(("127.0.0.1", 0))
        self._orders, self._obeying = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._processes: list[Any] = []

    def __enter__(self) -> World:
        theirs = self._obeying
        giver, taker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._start(lambda: flood_world.tor_and_services(self._tor, giver))
        self._start(lambda: flood_world.name_servers(taker, self._flooder, theirs))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    @property
    def socks(self) -> str:
        return "{}:{}".format(*self._tor.getsockname())

    def order(self, word: str, bytes_per_s: float = 0.0) -> tuple[int, int, int]:
        """isoproxy's connections to the hostile server; bytes flooded to it, and to the reader."""
        self._orders.send(f"{word} {bytes_per_s}".encode())
        connections, proxy, reader = json.loads(self._orders.recv(1000))
        return connections, proxy, reader

    def start_reader(self, connections: int) -> Any:
        return self._start(lambda: flood_world.reader(self._flooder.getsockname(), connections))

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Any:
        process = _fork.Process(target=lambda: flood_world.run(work()), daemon=True)
        process.start()
        self._processes.append(process)
        return process


@contextlib.contextmanager
def isoproxy(tree: Path, world: World, processes: int) -> Iterator[tuple[str, int]]:
    """A fresh isoproxy of `tree`; gives its listener and its process ID."""
    with tempfile.TemporaryDirectory(prefix="flood") as directory:
        config = Path(directory) / "isoproxy.toml"
        servers = [f"{host}:{PORT}:t" for host in HOSTS]
        config.write_text(
            f"""\
[tor]
mode = "system"
socks = "{world.socks}"
control = "none"
[[listener]]
address = "127.0.0.1:0"
[limits]
workers = {processes}
[names]
backend = "electrum"
[names.electrum]
network = "regtest"
confirmations = 1
circuits_per_minute = 6000
servers = {json.dumps(servers)}
"""
        )
        state = {name: f"{directory}/{name}" for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY")}
        process = subprocess.Popen(
            [tree / ".venv" / "bin" / "isoproxy", "run", "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tree,
            env={"PATH": os.environ["PATH"], "HOME": directory, **state},
        )
        with process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline().decode().split()
                if line[:2] != ["listening", "socks"]:
                    raise SystemExit(f"isoproxy did not start: {' '.join(line)}")
                yield line[2], process.pid
            finally:
                process.terminate()


def stream(listener: str, host: str, identity: str) -> tuple[float, float]:
    """Connect and have some bytes echoed: s from the beginning, and from when Tor was asked."""
    began = time.monotonic()
    with create_connection(f"{host}:80", isolation=identity, proxy=listener, timeout=60) as sock:
        sock.sendall(b"x" * MOMENT.size)
        said = b""
        while len(said) < MOMENT.size:
            if not (data := sock.recv(MOMENT.size)):
                raise OSError("the stream was cut")
            said += data
        ended = time.monotonic()
    return ended - began, ended - MOMENT.unpack(said)[0]


def warm(listener: str) -> None:
    """Have the name answered for those identities that use it later."""
    deadline = time.monotonic() + START_S
    for identity in WARM:
        while True:
            try:
                stream(listener, f"{NAME}.bit", identity)
                break
            except DialError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def measure(
    tree: Path, world: World, processes: int, flood: Flood, seconds: float, times: Times
) -> Flood:
    """One run of streams during `flood`; the flood of the other program that is its equal."""
    serial, enough = itertools.count(), len(times.plain) + FEWEST
    with isoproxy(tree, world, processes) as (listener, pid):
        warm(listener)
        connections, *_ = world.order(CALM)
        reader = world.start_reader(flood.connections) if flood.side == READER else None
        at = 2 if reader else 1
        flooded = world.order(flood.side, flood.bytes_per_s)[at]
        proxy_cpu, began = cpu_seconds(pid), time.monotonic()
        while time.monotonic() - began < seconds or len(times.plain) < enough:
            number = next(serial)
            times.plain.append(stream(listener, ADDRESS, f"plain{number}")[0])
            time.sleep(PAUSE_S)
            identity = WARM[number % len(WARM)]
            times.named.append(stream(listener, f"{NAME}.bit", identity)[1])
            time.sleep(PAUSE_S)
        took = time.monotonic() - began
        flooded = world.order(CALM)[at] - flooded
        times.seconds += took
        times.flooded += flooded
        times.proxy_cpu += cpu_seconds(pid) - proxy_cpu
        if reader is not None:
            times.reader_cpu += cpu_seconds(reader.pid)
            reader.kill()
            reader.join()
    return Flood(READER, flooded / took / max(1, connections), max(1, connections))


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def judge(processes: int, calm: Times, flooded: Times) -> bool:
    """Print one table; whether the flood stays within what is allowed."""
    print(f"\n{processes} stream process{'es' * (processes > 1)}")
    for title, one in (("undisturbed", calm), ("flooded", flooded)):
        cpu = one.reader_cpu if one is calm else one.proxy_cpu
        who = "the other program" if one is calm else "isoproxy"
        print(
            f"  {title:<12}{one.flooded / one.seconds / 1e6:5.1f} MB/s taken by {who}, which used "
            f"{cpu / one.seconds:4.2f} of a core (isoproxy {one.proxy_cpu / one.seconds:4.2f})"
        )
    good = True
    print(f"  {'':<14}{'n':>6}{'undisturbed':>13}{'flooded':>10}{'allowed':>10}  (ms)")
    for kind, before, after in (
        ("address", calm.plain, flooded.plain),
        (".bit", calm.named, flooded.named),
    ):
        for percent in (50, 99):
            was, is_ = percentile(before, percent), percentile(after, percent)
            allowed = was * FACTOR + MARGIN_S
            good &= is_ <= allowed
            figures = "".join(f"{value * 1e3:>10.2f}" for value in (was, is_, allowed))
            verdict = "met" if is_ <= allowed else "MISSED"
            print(f"  {kind + f' p{percent}':<14}{len(after):>6}   {figures}  {verdict}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tree", type=Path, default=ROOT, help="another tree, with its .venv")
    parser.add_argument("--rate", type=float, default=3.0, help="MB/s over each connection")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run")
    parser.add_argument("--pairs", type=int, default=3, help="of runs, in turns")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    good = True
    for processes in options.processes:
        calm, flooded = Times(), Times()
        with World() as world:
            for _ in range(options.pairs):
                flood = Flood(PROXY, options.rate * 1e6)
                for times in (flooded, calm):
                    flood = measure(options.tree, world, processes, flood, options.seconds, times)
        good &= judge(processes, calm, flooded)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
