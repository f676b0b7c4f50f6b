"""One tor process of the private network: its files, its start, its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

from tests.kit.tornet.control import Address, Control, TorNetError, listener_addresses

Role = Literal["authority", "exit", "middle", "client"]

OR_PORT = 9001
DIR_PORT = 9030
SOCKS_PORT = 9050
CONTROL_PORT = 9051


class Node:
    """A tor with a directory and a loopback address of its own."""

    def __init__(self, command: list[str], directory: Path, name: str, ip: str, role: Role):
        self.name, self.ip, self.role = name, ip, role
        self.dir = directory
        self.fingerprint = ""
        self.socks_path = str(directory / "socks")
        self.control_path = str(directory / "control")
        self.cookie = str(directory / "cookie")
        self.log = directory / "log"
        self.torrc = directory / "torrc"
        self._stdout = directory / "stdout"
        self._command = [*command, "-f", str(self.torrc)]
        self._settings = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._owner: Control | None = None
        (directory / "keys").mkdir(parents=True, mode=0o700)
        directory.chmod(0o700)

    # -- addresses and state

    @property
    def socks(self) -> tuple[str, int]:
        """A client's TCP SocksPort, all settings Tor's defaults."""
        return self.ip, SOCKS_PORT

    @property
    def controlport(self) -> tuple[str, int]:
        """A client's TCP ControlPort."""
        return self.ip, CONTROL_PORT

    @property
    def pid(self) -> int:
        if self._process is None:
            raise TorNetError(f"{self.name} was never started")
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while tor runs (or was never started)."""
        return self._process.poll() if self._process else None

    def has_crashed(self) -> bool:
        """Whether tor has ended without one of the methods here having ended it."""
        return self._owner is not None and self.exit_status() is not None

    def listener(self, kind: str) -> list[Address]:
        """The addresses of one kind of port: "socks", "dns", "control", ..."""
        return listener_addresses(self.ctl.getinfo("net/listeners/" + kind))

    def log_tail(self, lines: int = 15) -> str:
        found: list[str] = []
        for path in (self._stdout, self.log):
            if path.exists():
                found += path.read_text(errors="replace").splitlines(keepends=True)
        return "".join(found[-lines:])

    def memory_kb(self) -> tuple[int, int]:
        """Resident and proportional set size, in kB."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
        return int(sizes["Rss"]), int(sizes["Pss"])

    # -- life

    def configure(self, settings: str) -> None:
        """Set the torrc; read by `start`."""
        self._settings = settings

    def start(self, once: str = "") -> None:
        """Start tor; the settings `once` do not survive its next SIGHUP."""
        # Until a control connection owns it, tor watches our process id.  Not for good:
        # stem, finding its own process id there, takes the ownership over, and closing
        # that stem controller would end tor.
        watch = f"__OwningControllerProcess {os.getpid()}\n"
        self.torrc.write_text(self._settings + once + watch)
        Path(self.cookie).unlink(missing_ok=True)
        with self._stdout.open("wb") as out:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def own(self) -> None:
        """Tie tor's life to a control connection of ours: it ends when that closes."""
        self._owner = self.control()
        self._owner.check("TAKEOWNERSHIP")
        self._owner.check("RESETCONF __OwningControllerProcess")
        self.torrc.write_text(self._settings)

    @property
    def ctl(self) -> Control:
        """The control connection that owns the process; never close it."""
        if self._owner is None:
            raise TorNetError(f"{self.name} is not running")
        return self._owner

    def control(self, timeout: float = 15.0) -> Control:
        """A new raw, authenticated control connection."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return Control(self.control_path, self.cookie)
            except (OSError, TorNetError) as error:
                if self.exit_status() is not None or time.monotonic() > deadline:
                    raise TorNetError(
                        f"{self.name}: no control connection ({error})\n{self.log_tail()}"
                    ) from error
            time.sleep(0.02)

    def stem(self) -> Any:
        """An authenticated stem.control.Controller."""
        import stem.control

        controller = stem.control.Controller.from_socket_file(self.control_path)
        controller.authenticate()
        return controller

    def has_bootstrapped(self) -> bool:
        return "TAG=done" in self.ctl.getinfo("status/bootstrap-phase")

    def kill(self) -> None:
        """SIGKILL, as a crash would be; `restart` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release()

    def restart(self, timeout: float = 30.0) -> None:
        """Start again after `kill` or `stop`, same settings; returns when bootstrapped."""
        self.start()
        self.own()
        deadline = time.monotonic() + timeout
        while not self.has_bootstrapped():
            if time.monotonic() > deadline:
                raise TorNetError(f"{self.name} did not bootstrap again\n{self.log_tail()}")
            time.sleep(0.05)

    def terminate(self) -> None:
        """Ask tor to end; `stop` waits for it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        self.terminate()
        self._release()
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None
