"""Machines of a test's own: network and mount namespaces, joined by a switch.

    with Switch() as switch, Machine() as one, Machine() as other:
        switch.connect(one, "eth0", "10.0.0.1/24")
        one.run("ip", "addr")
        one.wrapper                  # words that start any program there

Theory of operation
    A machine is a process that waits; the kernel keeps its namespaces for as long as it or
    a program started in them lives.  It ends when the pipe from the test closes, however
    the test ends, so nothing is left behind: no name, no interface, no mount.  The switch
    is a machine too, with a bridge; the cables are made there and one end handed out.

    Files of a machine are those of this one, until `show` puts a file in another place:
    its directories are then overlays, and what is written there is seen by nobody else.

Needs root.  `missing()` says what stands in the way.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TIMEOUT_S: Final = 30
_OVERLAID: Final = ("etc", "usr/share", "usr/lib/systemd", "usr/local")
_READY: Final = "mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec cat"


def missing() -> str:
    """What this machine lacks for others to be made on it; nothing if all is there."""
    if os.geteuid() != 0:
        return "machines of their own need root, for network and mount namespaces"
    for name, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(name) is None:
            return f"{name} is needed: apt-get install {package}"
    words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c"]
    probe = "mount -t tmpfs tmpfs /run && ip link add name probe type bridge"
    done = subprocess.run([*words, probe], capture_output=True, text=True, check=False)
    return f"no namespaces may be made here: {done.stderr.strip()}" if done.returncode else ""


def wait_for(what: str, condition: Callable[[], object], seconds: float = TIMEOUT_S) -> None:
    """Return once `condition()` is true; fails if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(0.05)


class Machine:
    """A machine of its own; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _READY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == "ready\n", "no machine could be made"
        self._has_overlays = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def wrapper(self) -> list[str]:
        """What to put before a command for it to run on this machine."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount"]

    @property
    def files_only(self) -> list[str]:
        """The same with the machine's files, but the network of the test."""
        return ["nsenter", f"--target={self.pid}", "--mount"]

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a program to its end; returns its output, fails if it did."""
        done = subprocess.run(
            [*self.wrapper, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def show(self, file: Path, place: Path) -> None:
        """Let `file` be seen at `place` as well: the file itself, not a copy."""
        self.make(place)
        self.run("mount", "--bind", str(file), str(place))

    def make(self, place: Path, text: str = "") -> None:
        """Write a file that exists on this machine only."""
        if not self._has_overlays:
            self._has_overlays = True
            for directory in _OVERLAID:
                layers = f"/run/overlay/{directory}"
                options = f"lowerdir=/{directory},upperdir={layers}/upper,workdir={layers}/work"
                self.run("mkdir", "-p", f"{layers}/upper", f"{layers}/work")
                self.run("mount", "-t", "overlay", "-o", options, "overlay", f"/{directory}")
        self.run("mkdir", "-p", str(place.parent))
        self.run("tee", str(place), text=text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)
        self._process.stdout.close()


class Switch(Machine):
    """What cables end in: every machine on it hears every other."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self.run("ip", "link", "add", "name", "bridge", "type", "bridge")
        self.run("ip", "link", "set", "bridge", "up")

    def connect(self, machine: Machine, interface: str, *addresses: str) -> None:
        """Lay a cable to `machine`, which calls its end `interface`."""
        ours, theirs = (f"{end}{next(self._numbers)}" for end in ("port", "far"))
        self.run("ip", "link", "add", "name", ours, "type", "veth", "peer", "name", theirs)
        self.run("ip", "link", "set", ours, "master", "bridge", "up")
        self.run("ip", "link", "set", theirs, "netns", str(machine.pid))
        machine.run("ip", "link", "set", theirs, "name", interface, "up")
        for address in addresses:
            more = ["nodad"] if ":" in address else []
            machine.run("ip", "addr", "add", address, "dev", interface, *more)
