"""The real `isoproxy run`, as its users start it, on the private network.

    with Isoproxy(tmp_path, system(net.client), listeners=[TCP, UNIX]) as proxy:
        proxy.addresses[0]          # where the first listener is, fit for `dial`
        proxy.status()              # what `isoproxy status --json` knows
        proxy.command("newnym")     # another command, as a process of its own

Theory of operation
    The process writes its `listening` lines and its log to files below `directory`, where
    it keeps its state as well.  The end of the context sends SIGTERM and waits.

Invariants
    At the end the exit status was 0, and the log holds well-formed records only: none of a
    defect, and nothing that did not go through the log, such as a traceback or a warning of
    the interpreter (it runs in development mode, which shows them).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from isoproxy.admin.client import NotRunning, ask
from tests.kit.service import environment
from tests.kit.tornet import Address, Node, TorNetwork

TCP: Final = 'address = "127.0.0.1:0"'
"""The settings of a listener on a free port, the rest by default."""

_START_S: Final = 90.0
_STOP_S: Final = 30.0
_RECORD: Final = re.compile(r'time=\S+ level=\w+ part=\S+ event=\S+|{"time": .*}$')
_PROGRESS: Final = re.compile(r"tor: [0-9]{1,3}% ")
# Warnings of asyncio's debug mode about slow turns of the loop are a busy machine's.
_DEFECTS: Final = ("level=err", '"level": "err"', "defect")


class Outcome(subprocess.CompletedProcess[str]):
    """How a command ended: `returncode`, `stdout`, `stderr`."""


class NotStarted(Exception):
    """`isoproxy run` ended, or did not listen in time; the text is what it said."""


def system(node: Node) -> list[str]:
    """Settings for a Tor that runs elsewhere: a client of the private network."""
    return [
        "tor.mode=system",
        f"tor.socks=unix:{node.socks_path}",
        f"tor.control=unix:{node.control_path}",
    ]


def managed(net: TorNetwork) -> list[str]:
    """Settings for a tor of isoproxy's own that joins the private network."""
    return ["tor.mode=managed", "tor.extra_torrc=" + json.dumps(net.joining_lines)]


class Isoproxy:
    """One `isoproxy run`; a context manager.

    settings   `key=value`, as for `--set`; without names unless they set names.backend
    listeners  the text of each [[listener]], in TOML
    proxies   the text of each [[bitcoin.proxy]]; their addresses follow the listeners'
    wrapper    a command to run it under, such as strace; it must become isoproxy itself
    develop    run it in Python's development mode: slower, and nothing goes unseen
    expected   beginnings of the events at level err that the test provokes
    """

    def __init__(
        self,
        directory: Path,
        settings: Sequence[str],
        *,
        listeners: Sequence[str] = (TCP,),
        proxies: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        develop: bool = True,
        expected: Sequence[str] = (),
    ):
        self.directory = directory
        self.log = directory / "log"
        self.config = directory / "isoproxy.toml"
        self.addresses: list[Address] = []
        """Of the listeners, in their order: (host, port), or a unix socket's path."""
        self._out = directory / "out"
        self._listeners = list(listeners)
        self._proxies = list(proxies)
        all_settings = ["names.backend=none", *settings]
        self._settings = [word for setting in all_settings for word in ("--set", setting)]
        self._wrapper = list(wrapper)
        self._expected = tuple(expected)
        # Without a HOME the interpreter itself asks the user database for one, and with it
        # whatever nsswitch.conf names.
        more = {"HOME": str(directory)} | ({} if develop else {"PYTHONWARNINGS": ""})
        self._environment = environment(directory, more)
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def host_and_port(self) -> str:
        """The first listener, as programs want it."""
        return "{}:{}".format(*self.address)

    @property
    def address(self) -> tuple[str, int]:
        """The first listener, one on TCP."""
        first = self.addresses[0]
        assert not isinstance(first, str), "the first listener is a unix socket"
        return first

    @property
    def admin(self) -> Path:
        return self.directory / "run" / "admin"

    @property
    def options(self) -> list[str]:
        """What other commands need in order to have its configuration."""
        return ["-c", str(self.config), *self._settings]

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """What `isoproxy status --json` prints."""
        return ask(self.admin, "status")

    def metrics(self) -> str:
        """The metrics, in Prometheus' text form."""
        return str(ask(self.admin, "metrics")["exposition"])

    def command(self, *arguments: str, wrapper: Sequence[str] = ()) -> Outcome:
        """Run another command of isoproxy's to its end, with the same configuration."""
        words = [*wrapper, sys.executable, "-m", "isoproxy", *arguments, *self.options]
        done = subprocess.run(
            words, env=self._environment, capture_output=True, text=True, timeout=_START_S
        )
        return Outcome(done.args, done.returncode, done.stdout, done.stderr)

    def execute(
        self,
        *program: str,
        isolation: str | None = None,
        browser: bool = False,
        **variables: str,
    ) -> str:
        """What a program that knows no proxy prints; raises CalledProcessError if it failed."""
        label = [] if isolation is None else ["--isolation", isolation]
        profile = ["--browser"] if browser else []
        words = [sys.executable, "-m", "isoproxy", "exec", *self.options, *label, *profile, "--"]
        done = subprocess.run(
            [*words, *program],
            env={**self._environment, "LC_ALL": "C", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S,
            check=True,
        )
        return done.stdout

    def wait_for(self, what: str, test: Callable[[], object], timeout: float = 30.0) -> None:
        """Return once `test()` is true; fails after `timeout` seconds, or if isoproxy ends."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if test():
                    return
            except NotRunning:
                if self._running.poll() is None:
                    raise
            assert self._running.poll() is None, f"isoproxy ended: {self.text()}"
            assert time.monotonic() < deadline, f"{what}: not in {timeout} s\n{self.text()}"
            time.sleep(0.05)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return once Tor answers: a managed one bootstraps first."""
        self.wait_for("Tor", lambda: self.status()["tor"]["answers"], timeout)

    def wait_for_workers(self, processes: int = 2) -> None:
        """Return once so many processes carry streams, as far as there are cores."""
        workers = min(processes, len(os.sched_getaffinity(0)))
        self.wait_for("workers", lambda: self._serving() == workers)

    def pids(self) -> list[int]:
        """All its processes."""
        return pids(self.status())

    def resident_kb(self) -> int:
        """The resident memory of all its processes, kB."""
        return sum(map(resident_kb, self.pids()))

    def _serving(self) -> int:
        return sum(worker["serving"] for worker in self.status()["workers"])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send the order to stop and wait; asserts that it ended well."""
        process = self._running
        process.send_signal(number)
        assert process.wait(_STOP_S) == 0, self.text()
        self.assert_clean_log()

    def kill(self) -> None:
        """End it as a crash would; the context then expects nothing of it any more."""
        self._kill()
        self._killed = True

    def assert_clean_log(self) -> None:
        """Every line is a record, and none tells of a defect."""
        for line in self.text().splitlines():
            assert _RECORD.match(line) or _PROGRESS.match(line), f"not a record: {line!r}"
            if any(f"event={event}" in line for event in self._expected):
                continue
            assert not any(word in line for word in _DEFECTS), line

    def __enter__(self) -> Self:
        sections = [("listener", one) for one in self._listeners]
        sections += [("bitcoin.proxy", one) for one in self._proxies]
        self.config.write_text("".join(f"[[{kind}]]\n{one}\n" for kind, one in sections))
        command = [*self._wrapper, sys.executable, "-m", "isoproxy", "run", *self.options]
        with self._out.open("wb") as out, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )
        try:
            self._await_listeners()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            if self._killed:
                return
            if error is None and self._running.poll() is None:
                self.stop()
            elif error is None:
                assert self._running.returncode == 0, self.text()
        finally:
            self._kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def _await_listeners(self) -> None:
        deadline = time.monotonic() + _START_S
        expected = ["socks"] * len(self._listeners) + ["bitcoin"] * len(self._proxies)
        while [protocol for protocol, _ in self._announced()] != expected:
            if self._running.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(self.text())
            time.sleep(0.02)
        self.addresses += [_address(address) for _, address in self._announced()]

    def _announced(self) -> list[tuple[str, str]]:
        """Protocol and address of what listens so far, in order.

        It stands on standard output, or where the log is JSON, in the log alone.
        """
        if "observe.log_format=json" not in self._settings:
            lines = [line for line in _whole_lines(self._out) if line.startswith("listening ")]
            told = [(line.split()[1], line.split()[2]) for line in lines]
            return [each for each in told if each[0] in ("socks", "bitcoin")]
        events = [json.loads(line) for line in _whole_lines(self.log) if line.startswith("{")]
        listening = [event for event in events if event["event"] == "listening"]
        return [
            ("bitcoin" if "proxy" in event else "socks", event["address"])
            for event in listening
            if event.get("listener") not in ("dashboard", "dns")
        ]

    def _kill(self) -> None:
        process = self._running
        if process.poll() is None:
            process.kill()
        process.wait()


def _whole_lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _address(text: str) -> Address:
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    return host, int(port)


# -- what the kernel says of a process


def pids(status: dict[str, Any]) -> list[int]:
    """All processes of the isoproxy that told this status."""
    workers = (worker["pid"] for worker in status["workers"])
    return [status["pid"], *(pid for pid in workers if pid is not None)]


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kb(pid: int) -> int:
    """The resident memory of a process, kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def children(pid: int) -> list[int]:
    """The process ids of a process's children, whichever thread started them."""
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[None]:
    """Let this process open so many; fails with what to do where the system forbids it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= wanted, (
        f"this test needs {wanted} descriptors, and {hard} is the limit here: raise it, "
        f"for instance with 'ulimit -Hn {wanted}' as root"
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
