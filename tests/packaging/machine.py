"""A clean Debian 12 or 13 of its own: made by debootstrap, booted with its own systemd.

Theory of operation
    `base_system` makes a root directory once, from the mirror that apt uses on this machine,
    and keeps it.  `build` makes the package in a copy of it.  A `Machine` is another copy,
    booted by systemd-nspawn with a network namespace that has a loopback device alone, and all
    of cgroup v2, so that services are confined as on a real machine, IP address filters
    included.  What the machine needs of apt is fetched before, while it is not running; what apt
    fetched once is kept beside the base system.

    Commands enter its namespaces (nsenter); programs of this machine may enter its network
    only (`in_network`).

Invariants
    Nothing of the machine outlives the context; no container is registered with, and no unit
    changed of, the systemd of this machine, which need not be running one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.kit.repository import ROOT

SUITES: Final = {"bookworm": 12, "trixie": 13}
"""Names and numbers of the releases that there is a package for."""
_WITH: Final = ("dbus", "man-db", "curl", "iproute2")
"""Beside what debootstrap takes: for the checks."""
_BOOT_S: Final = 90
_OFFLINE_S: Final = 1800
_AUTHORITIES: Final = "/mnt/authorities.crt"
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_PAGER": "cat",
}


class MachineError(Exception):
    """The machine, or a command in it, failed; the text holds its output."""


def run(command: Sequence[str | Path], *, timeout_s: float = 600) -> str:
    """The output of a command of this machine; MachineError if it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=timeout_s,
    )  # fmt: skip
    if done.returncode:
        words = " ".join(map(str, command))
        raise MachineError(f"{words}\nended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def apt_sources(suite: str) -> list[str]:
    """`deb` lines for a suite, from the archives of the one that apt uses on this machine."""
    lines = run([
        *("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"),
        *("Created-By: Packages", "Origin: Debian"),
    ]).splitlines()  # fmt: skip
    found: list[str] = []
    for own in SUITES:
        mine = [line for line in lines if line.split()[2].startswith(own)]
        found += [line.replace(f" {own}", f" {suite}") for line in mine]
    if not found:
        raise MachineError("apt has no sources of Debian here; run apt-get update")
    return list(dict.fromkeys(found))


def base_system(cache: Path, suite: str) -> Path:
    """The clean system's root directory below `cache`, made if it is missing."""
    cache = cache / suite
    root, unfinished = cache / "base", cache / "base.unfinished"
    if root.exists():
        return root
    if unfinished.exists():
        shutil.rmtree(unfinished)
    cache.mkdir(parents=True, exist_ok=True)
    sources = apt_sources(suite)
    mirror = next(line for line in sources if line.split()[2] == suite).split()[1]
    run(["debootstrap", f"--include={','.join(_WITH)}", suite, unfinished, mirror], timeout_s=1800)
    (unfinished / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")
    _offline(unfinished, "apt-get", "update", "-q")
    unfinished.rename(root)
    return root


def build(base: Path, root: Path) -> list[Path]:
    """What `make deb` leaves in dist/ of a clone of this repository, on a clean system.

    Only git and make are there before.  `root` is taken for the copy.
    """
    copy(base, root)
    run(["git", "clone", "-q", ROOT, root / "root" / "isoproxy"])
    script = "apt-get install -y -q --no-install-recommends git make && make -C /root/isoproxy deb"
    _offline(root, "bash", "-euc", script)
    return sorted((root / "root/isoproxy/dist").iterdir())


def lintian(root: Path, changes: Path) -> str:
    """What lintian of the system in `root` says of what was built there."""
    inside = "/" + str(changes.relative_to(root))
    words = f"lintian --fail-on none --allow-root --tag-display-limit 0 {inside}"
    _offline(root, "bash", "-euc", f"{words} > /root/lintian")
    return (root / "root" / "lintian").read_text().strip()


def copy(base: Path, root: Path) -> None:
    """Make `root` a copy of a base system."""
    if root.exists():
        shutil.rmtree(root)
    run(["cp", "-a", "--reflink=auto", base, root])


def _offline(root: Path, *command: str) -> str:
    """A command in a root directory that is not booted; it has this machine's network.

    If this machine believes authorities of its own, so does pip in there.
    """
    more = [f"--setenv={name}" for name in os.environ if name.lower().endswith("_proxy")]
    if (authorities := os.environ.get("PIP_CERT")) is not None:
        more += [f"--bind-ro={authorities}:{_AUTHORITIES}", f"--setenv=PIP_CERT={_AUTHORITIES}"]
    return run(
        ["systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--pipe",
         _downloads(root), "--setenv=DEBIAN_FRONTEND=noninteractive", *more, *command],
        timeout_s=_OFFLINE_S,
    )  # fmt: skip


def _downloads(root: Path) -> str:
    """The option that lends a root directory what apt fetched for any of its release."""
    kept = root.parent / "archives"
    (kept / "partial").mkdir(parents=True, exist_ok=True)
    return f"--bind={kept}:/var/cache/apt/archives"


class Machine:
    """A copy of the base system at `root`; within the context it runs."""

    def __init__(self, base: Path, root: Path) -> None:
        copy(base, root)
        self.root = root
        self._console = root.with_suffix(".console")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0
        """Process id of its systemd, seen from here."""

    def fetch(self, package: Path, *others: str) -> None:
        """Copy a .deb to /root, and download what it and `others` need; call it before the boot."""
        shutil.copy(package, self.root / "root")
        _offline(
            self.root,
            *("apt-get", "install", "-y", "-q", "--no-install-recommends", "--download-only"),
            *(f"/root/{package.name}", *others),
        )

    def __enter__(self) -> Self:
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "-q", "-D", self.root, "--boot", "--console=read-only"),
                    _downloads(self.root),
                    *(f"--machine=isoproxy-{os.getpid()}", "--register=no", "--keep-unit"),
                    # bpf: systemd filters addresses with it
                    *("--private-network", "--capability=all", "--system-call-filter=bpf"),
                ],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            self._await_boot()
        except BaseException:
            self._power_off()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._power_off()

    def run(self, *command: str, timeout_s: float = 300) -> str:
        """The output of a command in the machine; MachineError if it fails."""
        return run([*self._enter("-a"), "env", "-i", *_variables(), *command], timeout_s=timeout_s)

    def shell(self, script: str, timeout_s: float = 300) -> str:
        return self.run("bash", "-euc", script, timeout_s=timeout_s)

    def fails(self, *command: str) -> str:
        """The output of a command that is expected to fail."""
        try:
            output = self.run(*command)
        except MachineError as error:
            return str(error)
        raise MachineError(f"{' '.join(command)}\nshould have failed, but said:\n{output}")

    def in_network(self, *command: str) -> list[str]:
        """A command line of this machine that runs in the other's network alone."""
        return [*self._enter("-n"), *command]

    def path(self, inside: str) -> Path:
        """A file of the running machine, its /run included, as it is seen from here."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def _enter(self, *which: str) -> list[str]:
        return ["nsenter", "-t", str(self.leader), *which, "--"]

    def _await_boot(self) -> None:
        assert self._nspawn is not None
        deadline = time.monotonic() + _BOOT_S
        state = "not even systemd"
        while time.monotonic() < deadline:
            time.sleep(0.5)
            if self._nspawn.poll() is not None:
                break
            self.leader = self.leader or _child(self._nspawn.pid, "systemd")
            if self.leader:
                with contextlib.suppress(MachineError):
                    state = self.run("systemctl", "is-system-running").strip()
                if state == "running":
                    return
        console = self._console.read_text(errors="replace")[-3000:]
        raise MachineError(f"the machine did not come up ({state}); its console:\n{console}")

    def _power_off(self) -> None:
        if self._nspawn is None:
            return
        self._nspawn.send_signal(signal.SIGTERM)  # an orderly power-off
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None


def _variables() -> Iterable[str]:
    return (f"{name}={value}" for name, value in _ENVIRONMENT.items())


def _child(parent: int, name: str) -> int:
    """The process id of a child with this name; 0 if there is none yet."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == name:
                return int(child)
    return 0
