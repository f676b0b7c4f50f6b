"""What a running isoproxy holds, looked at once a second, as rows of a CSV file.

The kernel says what memory and descriptors its processes have together; every five seconds
isoproxy's own status says how many tasks and flows, and Tor how many circuits.
"""

from __future__ import annotations

import csv
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from isoproxy.errors import OperationError
from tests.kit.isoproxy_process import Isoproxy, descriptors, pids
from tests.kit.tornet import Control, Node, TorNetError

COLUMNS: Final = (
    "seconds",
    "rss_kb",
    "anonymous_kb",
    "descriptors",
    "cpu_seconds",
    "tor_cpu_seconds",
    "load",
    "flows",
    "tasks",
    "opened",
    "circuits",
    "status_ms",
    "tor_ms",
)
"""From `flows` on, of the last time that isoproxy and Tor were asked.  `status_ms` and `tor_ms`:
how long isoproxy took to tell its status, and Tor its circuits."""
ASK_EVERY_S: Final = 5.0
"""isoproxy and Tor are asked less often: a list of thousands of circuits is work for Tor."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Sampler:
    """Writes a row per second from `start` to `stop`, in a thread of its own."""

    def __init__(self, proxy: Isoproxy, tor: Node, file: Path) -> None:
        self._proxy, self._tor = proxy, tor
        self._control: Control | None = None
        self.late = 0
        """How often isoproxy or Tor did not answer in time: the last answer was kept."""
        self._file = file
        self._ask_at = 0.0
        self._told: list[float] = []
        self._pids: list[int] = []
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End; raises what kept the sampler from its work."""
        self._over.set()
        self._thread.join()
        self._hang_up()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._file.open("w", newline="") as out:
                rows = csv.writer(out, lineterminator="\n")
                rows.writerow(COLUMNS)
                every_second(self._over, lambda seconds: rows.writerow(self._row(seconds)))
        except BaseException as error:
            self._error = error

    def _row(self, seconds: float) -> list[float]:
        if seconds >= self._ask_at:
            self._ask_at = seconds + ASK_EVERY_S
            try:
                self._ask()
            except (OperationError, TorNetError):
                if not self._told:
                    raise
                self.late += 1
                self._hang_up()  # or its reply would be taken for another's
        memory = [memory_kb(pid) for pid in self._pids]
        return [
            round(seconds, 1),
            sum(rss for rss, _ in memory),
            sum(anonymous for _, anonymous in memory),
            sum(map(descriptors, self._pids)),
            round(sum(map(cpu_seconds, self._pids)), 1),
            round(cpu_seconds(self._tor.pid), 1),
            round(os.getloadavg()[0], 1),
            *self._told,
        ]

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _ask(self) -> None:
        self._control = self._control or self._tor.control()
        began = time.monotonic()
        status = self._proxy.status()
        told = time.monotonic()
        self._pids = pids(status)
        circuits = self._control.getinfo("circuit-status").split("\n")
        tor_told = time.monotonic()
        self._told = [
            len(status["flows"]),
            status["tasks"],
            status["counters"]["opened"],
            len([line for line in circuits if " BUILT " in line]),
            round((told - began) * 1000),
            round((tor_told - told) * 1000),
        ]


def every_second(over: threading.Event, act: Callable[[float], Any]) -> None:
    """Call `act(seconds since the start)` each second until `over`; late ones are left out."""
    began = time.monotonic()
    while not over.is_set():
        now = time.monotonic() - began
        act(now)
        over.wait(max(0.0, int(now) + 1 - (time.monotonic() - began)))


def memory_kb(pid: int) -> tuple[int, int]:
    """Resident memory of a process, and how much of it is its own (heap and stacks), kB.

    The proportional set size is no measure here: it grows when other programs end that had
    the same libraries mapped.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    return int(sizes["Rss"]), int(sizes["Anonymous"])


def cpu_seconds(pid: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def read(file: Path) -> dict[str, list[float]]:
    """The columns of a file of samples."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}
