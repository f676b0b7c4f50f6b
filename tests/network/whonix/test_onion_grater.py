"""Promise: beside the real onion-grater, no workstation reaches another one's streams.

A gateway and three workstations.  On the gateway: a tor that leaves its streams to a
controller, onion-grater as Whonix runs it (its real merger and filter, Whonix's default
profile, and every profile that we ship turned on), and `stemns control-filter` beside it.
tor has no way out: what is looked at is whose stream waits where, by tor's own list.

ONION_GRATER_PATH       a checkout of Whonix/onion-grater
WHONIX_GATEWAY_PATH     a checkout of Whonix/anon-gw-anonymizer-config
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kit.repository import ROOT
from tests.network.whonix.machines import Machine, Switch, missing, wait_for
from tests.network.whonix.test_gateway import background

GATEWAY: Final = "10.152.152.10"
TORRC: Final = f"""
SocksPort {GATEWAY}:9050
ControlPort 9052
ControlSocket /run/tor/control
CookieAuthentication 1
CookieAuthFile /run/tor/control.authcookie
__LeaveStreamsUnattached 1
GeoIPFile /dev/null
GeoIPv6File /dev/null
"""
STEMNS: Final = f"""
[stemns]
control = "unix:/run/tor/control"
[control_filter]
listen = ["{GATEWAY}:9253"]
suffixes = ["bit"]
"""
PROFILES: Final = Path("/usr/local/etc/onion-grater-merger.d")


def _lacking() -> str:
    for name in ("ONION_GRATER_PATH", "WHONIX_GATEWAY_PATH"):
        if name not in os.environ:
            return f"{name} is not set: the real onion-grater and Whonix's profile are needed"
    for module in ("psutil", "yaml"):
        if importlib.util.find_spec(module) is None:
            return f"onion-grater needs the Python module {module} in this environment"
    return missing()


pytestmark = pytest.mark.skipif(bool(_lacking()), reason=_lacking())


@dataclass
class Workstation:
    """A workstation, and its sockets in the gateway's ports."""

    machine: Machine
    address: str

    def connect(self, port: int) -> socket.socket:
        """A connection to a port of the gateway, from this workstation."""
        # A socket belongs to the network of the thread that made it.
        test, there = os.open("/proc/self/ns/net", 0), f"/proc/{self.machine.pid}/ns/net"
        with open(there, "rb") as file:
            _enter(file.fileno())
        try:
            return socket.create_connection((GATEWAY, port), 10)
        finally:
            _enter(test)
            os.close(test)

    @contextlib.contextmanager
    def asking_for(self, host: bytes) -> Iterator[None]:
        """A stream of this workstation's that waits in tor."""
        with self.connect(9050) as stream:
            stream.sendall(b"\5\1\0")
            assert stream.recv(2) == b"\5\0"
            stream.sendall(b"\5\1\0\3" + bytes([len(host)]) + host + b"\0\x50")
            yield


def _enter(network: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(network, 0) == 0, os.strerror(ctypes.get_errno())


class Controller:
    """A control connection; answers are those to the last command."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rwb")

    def ask(self, line: str) -> list[str]:
        """The lines of the answer; events are left out."""
        self._file.write(line.encode() + b"\r\n")
        self._file.flush()
        lines: list[str] = []
        in_data = False
        while True:
            text = self._file.readline().decode().rstrip("\r\n")
            assert text, f"{line}: no answer"
            if text.startswith("650"):
                continue
            lines.append(text)
            if in_data:
                in_data = text != "."
            elif text[3:4] == " ":
                return lines
            else:
                in_data = text[3:4] == "+"


@dataclass
class Lab:
    gateway: Machine
    workstations: list[Workstation]

    def streams(self) -> dict[str, str]:
        """The targets of tor's streams by their numbers, by tor itself."""
        code = (
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/tor/control');"
            "c = open('/run/tor/control.authcookie', 'rb').read().hex();"
            "s.sendall(f'AUTHENTICATE {c}\\r\\nGETINFO stream-status\\r\\nQUIT\\r\\n'.encode());"
            "print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
        )
        listed = self.gateway.run(sys.executable, "-c", code).replace("250-stream-status=", "")
        rows = [line.split() for line in listed.splitlines()]
        return {row[0]: row[3] for row in rows if len(row) == 4 and row[0].isdigit()}

    def number_of(self, target: str) -> str:
        found: list[str] = []

        def look() -> list[str]:
            found[:] = [number for number, one in self.streams().items() if one == target]
            return found

        wait_for(target, look)
        return found[0]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("onion-grater")
    grater = Path(os.environ["ONION_GRATER_PATH"]) / "usr" / "lib"
    default = Path(os.environ["WHONIX_GATEWAY_PATH"]) / "etc/onion-grater-merger.d"
    with contextlib.ExitStack() as stack:
        use = stack.enter_context
        switch, gateway = use(Switch()), use(Machine())
        switch.connect(gateway, "eth1", f"{GATEWAY}/18")
        gateway.run("mkdir", "-m", "700", "/run/tor", "/run/data")
        for file in default.glob("*.yml"):
            gateway.make(Path("/etc/onion-grater-merger.d") / file.name, file.read_text())
        for file in (ROOT / "packaging" / "onion-grater").glob("*.yml"):
            gateway.make(PROFILES / file.name, file.read_text())
        gateway.make(Path("/etc/stemns-test.toml"), STEMNS)
        gateway.run(sys.executable, str(grater / "onion-grater-merger"))
        torrc = Path("/etc/torrc-test")
        gateway.make(torrc, TORRC)
        use(_tor(gateway, torrc))
        wait_for("tor", lambda: "control.authcookie" in gateway.run("ls", "/run/tor"))
        for name, words in {
            "filter": ["-m", "stemns_plugin", "control-filter", "-c", "/etc/stemns-test.toml"],
            "grater": [
                "-Bu", str(grater / "onion-grater"),
                "--listen-address", GATEWAY, "--listen-port", "9051",
            ],
        }.items():  # fmt: skip
            use(background(gateway, directory / name, *words, directory=directory))
        workstations = []
        for number in (11, 12, 13):
            machine = use(Machine())
            switch.connect(machine, "eth0", f"10.152.152.{number}/18")
            workstations.append(Workstation(machine, f"10.152.152.{number}"))
        wait_for("the filter", lambda: "served" in (directory / "filter").read_text())
        wait_for("onion-grater", lambda: "started" in (directory / "errors").read_text())
        yield Lab(gateway, workstations)


@contextlib.contextmanager
def _tor(gateway: Machine, torrc: Path) -> Iterator[None]:
    words = ["tor", "-f", str(torrc), "--defaults-torrc", "/dev/null", "--DataDirectory"]
    process = subprocess.Popen(
        [*gateway.wrapper, *words, "/run/data"], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def victim(lab: Lab) -> Iterator[str]:
    """The number of a stream of the first workstation's, offered to its own controller."""
    owner = lab.workstations[0]
    with owner.connect(9253) as sock:
        assert Controller(sock).ask("SETEVENTS STREAM") == ["250 OK"]
        with owner.asking_for(b"secret.bit"):
            yield lab.number_of("secret.bit:80")
    wait_for("the end of the stream", lambda: "secret.bit:80" not in lab.streams().values())


@pytest.mark.parametrize("workstation", [0, 1, 2])
@pytest.mark.parametrize("port", [9051, 9253])
def test_no_workstation_reaches_another_ones_stream(
    lab: Lab, victim: str, workstation: int, port: int
) -> None:
    """The four threats: to redirect, to choose circuits, to close, to watch.

    onion-grater does not know whose a stream is, so it lets nobody, not even its owner.
    """
    with lab.workstations[workstation].connect(port) as sock:
        attacker = Controller(sock)
        answers = {
            line: attacker.ask(line)
            for line in (
                f"REDIRECTSTREAM {victim} evil.test",
                f"ATTACHSTREAM {victim} 0",
                f"ATTACHSTREAM {victim} 1",
                "EXTENDCIRCUIT 0",
                f"CLOSESTREAM {victim} 1",
                "GETINFO circuit-status",
                "SETCONF __LeaveStreamsUnattached=0",
                "MAPADDRESS secret.bit=evil.test",
                "GETCONF SocksPort",
            )
        }
        answers["SETEVENTS STREAM CIRC"] = attacker.ask("SETEVENTS STREAM CIRC")
        # suppressed is not refused, and not heard
        allowed = [line for line, answer in answers.items() if answer[-1].startswith("250")]
        assert allowed == (["SETEVENTS STREAM CIRC"] if port == 9051 else [])
        if workstation:
            assert "secret" not in str(attacker.ask("GETINFO stream-status"))
    assert lab.streams()[victim] == "secret.bit:80"


def test_a_workstation_brings_names_to_its_own_streams(lab: Lab) -> None:
    first, second, _ = lab.workstations
    with first.connect(9253) as sock, second.connect(9253) as other:
        controller = Controller(sock)
        controller.ask("SETEVENTS STREAM")
        Controller(other).ask("SETEVENTS STREAM")
        with first.asking_for(b"mine.bit"):
            number = lab.number_of("mine.bit:80")
            listed = controller.ask("GETINFO stream-status")
            (line,) = [line for line in listed if "mine.bit" in line]
            mine = line.split()[0]
            assert mine != number
            assert controller.ask(f"redirectstream {mine} dest.test ") == ["250 OK"]
            assert controller.ask(f"ATTACHSTREAM {mine} 0") == ["250 OK"]
            assert lab.number_of("dest.test:80") == number


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("SIGNAL NEWNYM", "250 OK"),
        ("GETINFO version", "250-version=0."),
        ("GETINFO status/bootstrap-phase", "250-status/bootstrap-phase="),
        ("GETINFO status/circuit-established", "250-status/circuit-established="),
        ("GETINFO address", "510 "),
        ("ADD_ONION NEW:BEST Port=80", "510 "),
    ],
)
def test_onion_grater_keeps_its_own_duties(lab: Lab, line: str, answer: str) -> None:
    for workstation in lab.workstations:
        with workstation.connect(9051) as sock:
            assert Controller(sock).ask(line)[0].startswith(answer)
