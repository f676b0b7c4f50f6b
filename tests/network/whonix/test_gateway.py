"""Promise: on a Whonix-Gateway, workstations stay apart, and reach isoproxy alone.

A gateway and two workstations, with the addresses Whonix gives them, on one switch.  The
gateway has exactly the files that `packaging/whonix/install` lists, in their places: tor is
a client of the private network with the shipped torrc drop-in (its port is carried to the
gateway by a tunnel, since the relays are on the test's own loopback), isoproxy runs with the
shipped configuration and no other, and the firewall is built from the shipped snippet in
the way Whonix builds its own.  Tor's control port is the witness.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.admin.client import ask
from tests.kit.onion import publish
from tests.kit.repository import ROOT
from tests.kit.servers import WebServer
from tests.kit.service import environment
from tests.kit.tornet import Node, TorNetwork
from tests.kit.witness import Stream, Witness
from tests.network.programs import program
from tests.network.whonix.install import installed
from tests.network.whonix.machines import Machine, Switch, missing, wait_for

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

GATEWAY: Final = "10.152.152.10"
GATEWAY6: Final = "fd19:c33d:88bc::10"
MARKER: Final = Path("/usr/share/anon-gw-base-files/gateway")
LOCAL: Final = Path("/usr/local/etc/isoproxy.d")
SOCKS_PORT: Final = 9249
TORRC: Final = """
%include /etc/torrc.d/*.conf
ControlSocket /run/tor/control GroupWritable RelaxDirModeCheck
"""
"""What Whonix' own torrc has: the chain of drop-ins, and Debian's control socket."""

# How Whonix reads its snippets, and what it makes of the ports they open.
EVALUATE: Final = """
set -eu -o pipefail -o errtrace
trap 'exit 9' ERR
INTERNAL_OPEN_PORTS=" 9050 "
for file in /etc/whonix_firewall.d/*.conf; do source "$file"; done
echo $INTERNAL_OPEN_PORTS
"""
FIREWALL: Final = """
table inet nat {{
    chain prerouting {{
        type nat hook prerouting priority -100;
        iifname eth1 ip daddr 10.152.152.10 tcp dport {{ {ports} }} redirect
        iifname eth1 ip6 daddr fd19:c33d:88bc::10 tcp dport {{ {ports} }} redirect
        iifname eth1 tcp flags & (fin|syn|rst|ack) == syn redirect to :9040
    }}
}}
table inet filter {{
    chain input {{
        type filter hook input priority 0; policy drop;
        iifname lo accept
        ct state established accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname eth1 tcp dport {{ {ports} }} accept
        iifname eth1 reject with tcp reset
    }}
    chain forward {{ type filter hook forward priority 0; policy drop; }}
    chain output {{
        type filter hook output priority 0; policy drop;
        ct state established accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        oifname lo accept
        ip daddr {{ 127.0.0.0/8, 10.152.152.0/24 }} accept
        ip6 daddr {{ ::1, fd19:c33d:88bc::/96 }} accept
        meta l4proto {{ tcp, udp }} counter name beyond
    }}
    counter beyond {{ }}
}}
"""
# A workstation lets in what EXTERNAL_OPEN_PORTS names: the port of its Electrum-NMC.
WORKSTATION: Final = """
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        iifname lo accept
        ct state established accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        tcp dport 8336 accept
        meta l4proto tcp reject with tcp reset
    }
}
"""


@dataclass
class Workstation:
    """A workstation with an Electrum-NMC; `asked` lists the names it was asked for."""

    machine: Machine
    address: str
    log: Path
    login: str = ""
    identities: set[int] = field(default_factory=set)

    @property
    def asked(self) -> list[str]:
        return [line for line in self.log.read_text().split() if line.startswith("d/")]

    def curl(self, who: str, url: str, *, at: str = f"{GATEWAY}:9250", source: str = "") -> str:
        """Fetch through the gateway's isoproxy."""
        words = ["curl", "-sS", "--max-time", "60", "--proxy", f"socks5h://{who}@{at}", url]
        more = ["--interface", source] if source else []
        return program(*self.machine.wrapper, *words, *more)

    def connects(self, host: str, port: int) -> bool:
        """Whether a plain TCP connection can be opened from here."""
        code = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
        done = subprocess.run(
            [*self.machine.wrapper, sys.executable, "-c", code], capture_output=True, check=False
        )
        return done.returncode == 0


@dataclass
class Lab:
    gateway: Machine
    tor: Node
    first: Workstation
    second: Workstation
    web: WebServer
    onion: str
    directory: Path

    def isoproxy(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command of isoproxy's, on the gateway."""
        return subprocess.run(
            [*self.gateway.wrapper, sys.executable, "-m", "isoproxy", *words],
            env=configured(self.directory),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


def configured(directory: Path) -> dict[str, str]:
    """The environment of isoproxy on the gateway, which has its own files in /etc/isoproxy."""
    ours = environment(directory)
    del ours["CONFIGURATION_DIRECTORY"]
    return ours


@contextlib.contextmanager
def background(machine: Machine, log: Path, *words: str, directory: Path) -> Iterator[None]:
    """A Python program on a machine, which prints to `log`."""
    with log.open("wb") as out, (directory / "errors").open("ab") as err:
        process = subprocess.Popen(
            [*machine.wrapper, sys.executable, *words],
            env=configured(directory),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield
        assert process.poll() is None, (directory / "errors").read_text()
    finally:
        process.terminate()
        process.wait(30)


def install(gateway: Machine) -> None:
    """The shipped files, each in the place that the install list names."""
    for file, place in installed():
        gateway.show(file, place)
        if place.suffix == ".toml" and "examples" in str(place):
            # as the user turns them on
            gateway.run("install", "-m", "600", "-Dt", str(LOCAL), str(place))
    gateway.make(MARKER)
    gateway.run("mkdir", "-m", "755", "/run/tor")


def open_ports(gateway: Machine) -> list[str]:
    return gateway.run("bash", "-c", EVALUATE).split()


@contextlib.contextmanager
def workstation(
    switch: Switch, number: int, values: dict[str, str], directory: Path
) -> Iterator[Workstation]:
    with Machine() as machine:
        address = f"10.152.152.{number}"
        switch.connect(machine, "eth0", f"{address}/18", f"fd19:c33d:88bc::{number}/48")
        machine.run("ip", "route", "add", "default", "via", GATEWAY)
        machine.run("nft", "-f", "-", text=WORKSTATION)
        clients = tomllib.loads(_shipped("60_electrum-nmc.toml"))["names"]["rpc"]["clients"]
        login = clients[f"{address}/32"].rpartition("@")[0]
        log = directory / f"electrum-nmc-{number}"
        program = [
            "-m",
            "tests.network.whonix.electrum_nmc",
            address,
            "8336",
            login,
            json.dumps(values),
        ]
        with background(machine, log, *program, directory=directory):
            wait_for("an Electrum-NMC", lambda: "ready" in log.read_text())
            yield Workstation(machine, address, log, login)


def _shipped(name: str) -> str:
    return next(file for file, _ in installed() if file.name == name).read_text()


@pytest.fixture(scope="module")
def lab(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("gateway")
    with contextlib.ExitStack() as stack:
        use = stack.enter_context
        web = use(WebServer(tor_network.server_ip, tor_network.exit_of))
        onion = use(publish(tor_network.relays[1], {80: web.address})).host
        switch, gateway = use(Switch()), use(Machine())
        switch.connect(gateway, "eth1", f"{GATEWAY}/18", f"{GATEWAY6}/48")
        use(Switch()).connect(gateway, "eth0", "198.51.100.2/24")  # the internet's side
        gateway.run("ip", "route", "add", "default", "via", "198.51.100.1")
        install(gateway)
        gateway.run("nft", "-f", "-", text=FIREWALL.format(ports=",".join(open_ports(gateway))))
        names = {"d/example": json.dumps({"tor": onion})}
        first = use(workstation(switch, 11, names, directory))
        second = use(workstation(switch, 12, {}, directory))
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", SOCKS_PORT), 1).close()
            pytest.skip(f"port {SOCKS_PORT} of this machine is taken; the shipped torrc needs it")
        tor = use(tor_network.temporary_client(TORRC, wrapper=gateway.files_only))
        tunnel = [
            "-m",
            "tests.network.whonix.tunnel",
            str(SOCKS_PORT),
            f"/proc/{os.getpid()}/ns/net",
        ]
        log = directory / "tunnel"
        use(background(gateway, log, *tunnel, directory=directory))
        wait_for("the tunnel", lambda: "ready" in log.read_text())
        log = directory / "listening"
        use(background(gateway, log, "-m", "isoproxy", "run", directory=directory))
        wait_for("isoproxy", lambda: log.read_text().count("listening") == 2)
        admin = directory / "run" / "admin"
        wait_for("Tor", lambda: ask(admin, "status")["tor"]["answers"], 60)
        wait_for("its control port", lambda: ask(admin, "status")["tor"]["control"] == "ready")
        yield Lab(gateway, tor, first, second, web, onion, directory)


def test_the_listeners_are_those_of_the_shipped_file(lab: Lab) -> None:
    lines = (lab.directory / "listening").read_text().splitlines()
    assert [line.split()[2] for line in lines] == [f"{GATEWAY}:9250", f"[{GATEWAY6}]:9250"]
    status: dict[str, Any] = ask(lab.directory / "run" / "admin", "status")
    assert status["tor"]["mode"] == "system"
    assert status["tor"]["control"] == "ready"


def test_the_same_credentials_on_two_workstations_are_two_identities(lab: Lab) -> None:
    url = lab.web.url(name="web.test")
    identity: dict[int, str] = {}
    with Witness(lab.tor) as witness:
        for at in (f"{GATEWAY}:9250", f"[{GATEWAY6}]:9250"):
            for one in (lab.first, lab.second, lab.first, lab.second):
                before = witness.mark()
                assert one.curl("bank:1", url, at=at).startswith("exit=")
                witness.settle()
                seen = witness.streams(after=before)
                identity |= {stream.id: f"{one.address} at {at}" for stream in seen}

        def who(stream: Stream) -> str:
            return identity[stream.id]

        streams = [stream for stream in witness.streams() if stream.id in identity]
        assert len(streams) == 8
        witness.assert_isolated(streams, who)
        witness.assert_shared(streams, who)


def test_tor_is_never_told_which_workstation_or_which_credentials(lab: Lab) -> None:
    with Witness(lab.tor) as witness:
        lab.first.curl("MARKED1:MARKED2", lab.web.url(name="web.test"))
        witness.settle()
        (stream,) = witness.streams()
    assert b"MARKED" not in (stream.username or b"") + (stream.password or b"")
    assert stream.source.startswith("127.0.0.1:")


def test_a_name_is_looked_up_by_the_electrum_nmc_of_the_workstation_that_asks(lab: Lab) -> None:
    before = len(lab.first.asked), len(lab.second.asked)
    page = lab.first.curl("who:1", "http://example.bit/")
    assert f"host={'example.bit'} " in page
    assert lab.first.asked[before[0] :].count("d/example") == 1
    assert len(lab.second.asked) == before[1]

    before = len(lab.first.asked), len(lab.second.asked)
    with pytest.raises(subprocess.CalledProcessError):  # there nobody registered it
        lab.second.curl("who:1", "http://example.bit/")
    assert lab.second.asked[before[1] :].count("d/example") == 1
    assert len(lab.first.asked) == before[0]


def test_a_workstation_without_one_is_answered_by_nobody_elses(lab: Lab) -> None:
    lab.second.machine.run("ip", "addr", "add", "10.152.152.13/18", "dev", "eth0")
    before = len(lab.first.asked), len(lab.second.asked)
    with pytest.raises(subprocess.CalledProcessError):
        lab.second.curl("who:1", "http://example.bit/", source="10.152.152.13")
    assert (len(lab.first.asked), len(lab.second.asked)) == before
    # the way itself is there
    assert lab.second.curl("who:1", lab.web.url(name="web.test"), source="10.152.152.13")


def test_one_workstations_password_opens_no_others_electrum_nmc(lab: Lab) -> None:
    """The port is open to the whole network: what keeps others out is the password."""
    body = '{"id":0,"method":"name_show","params":{"identifier":"d/example","stream_id":""}}'
    words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--data", body]
    url = f"http://{lab.first.address}:8336/"
    codes = [
        program(*lab.second.machine.wrapper, *words, "-u", one.login, url)
        for one in (lab.first, lab.second)
    ]
    assert codes == ["200", "401"]


def test_workstations_reach_isoproxy_and_nothing_else_of_the_gateway(lab: Lab) -> None:
    ports = (22, 8080, 9040, 9052, 9250)
    server = "import socket, time; s = [socket.create_server((h, p)) for h in ('10.152.152.10',"
    server += f" '127.0.0.1') for p in {[port for port in ports if port != 9250]}]; "
    server += "print('ready', flush=True); time.sleep(600)"
    log = lab.directory / "others"
    with background(lab.gateway, log, "-c", server, directory=lab.directory):
        wait_for("the other servers", lambda: "ready" in log.read_text())
        for one in (lab.first, lab.second):
            assert {port for port in ports if one.connects(GATEWAY, port)} == {9250}
            assert not one.connects("192.0.2.1", 443)
            assert not one.connects("192.0.2.1", 9250)
            assert not one.connects("127.0.0.1", 9250)


def test_without_the_snippet_the_port_is_closed(lab: Lab) -> None:
    assert open_ports(lab.gateway) == ["9050", "9250"]
    place = next(place for file, place in installed() if "whonix_firewall.d" in str(file))
    with Machine() as bare:
        bare.show(next(file for file, at in installed() if at == place), place)
        # no gateway: read without an error, and of no effect
        assert open_ports(bare) == ["9050"]


def test_isoproxy_sent_nothing_beyond_its_network(lab: Lab) -> None:
    def counted() -> str:
        return lab.gateway.run("nft", "list", "counter", "inet", "filter", "beyond")

    assert "packets 0 bytes 0" in counted()
    code = "import socket; s = socket.socket(); s.settimeout(0.2); s.connect_ex(('192.0.2.1', 443))"
    lab.gateway.run(sys.executable, "-c", code)
    assert "packets 0 bytes 0" not in counted()  # the counter is not blind


def test_the_doctor_on_the_gateway(lab: Lab) -> None:
    done = lab.isoproxy("doctor", "--json", "--target", f"web.test:{lab.web.port}")
    findings = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert findings["circuits of separate identities"]["verdict"] == "ok", done.stdout
    assert not [one for one in findings.values() if one["verdict"] == "failed"], done.stdout


def test_a_clean_end(lab: Lab) -> None:
    """Whatever was asked of it: nothing that went wrong is in the log."""
    text = (lab.directory / "errors").read_text()
    assert "defect" not in text
    assert "Traceback" not in text
    assert "MARKED" not in text
    assert str(ROOT) not in text
