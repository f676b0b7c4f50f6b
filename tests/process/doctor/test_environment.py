"""What the doctor sees of this machine, against real files, ports and sockets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.doctor.environment import (
    connections,
    permissions,
    ports,
    secrets,
    sockets_of,
    without_credentials,
)
from isoproxy.doctor.finding import Finding, Verdict
from isoproxy.net.endpoint import Endpoint


def verdicts(findings: list[Finding]) -> list[Verdict]:
    assert all(one.advice for one in findings if one.verdict is not Verdict.OK)
    return [one.verdict for one in findings]


def test_a_free_port_and_a_taken_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = load(
            None,
            [
                "listener.0.address=127.0.0.1:0",
                f"listener.1.address=127.0.0.1:{other.getsockname()[1]}",
                f"listener.2.address=unix:{tmp_path}/x",
                f"listener.3.address=unix:{tmp_path}/missing/x",
            ],
        ).config
        findings = list(ports(config))
    assert verdicts(findings) == [Verdict.OK, Verdict.FAILED, Verdict.OK, Verdict.FAILED]
    assert "Address already in use" in str(findings[1])
    assert str(findings[1]).endswith(
        "-> stop the program that uses it, or choose another address in [[listener]]"
    )


def test_a_socket_file_is_free_if_nobody_listens_at_it(tmp_path: Path) -> None:
    path = tmp_path / "socks"
    config = load(None, [f"listener.0.address=unix:{path}"]).config
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        (finding,) = ports(config)
        assert "another program listens there" in finding.found
    assert verdicts(list(ports(config))) == [Verdict.OK]
    path.unlink()
    path.touch()
    assert verdicts(list(ports(config))) == [Verdict.FAILED]


def test_every_address_is_looked_at(tmp_path: Path) -> None:
    """Those of proxies, the DNS server (on UDP and TCP) and the dashboard, too."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        config = load(
            None,
            [
                "listener.0.address=127.0.0.1:0",
                f"bitcoin.proxy.0.address=127.0.0.1:{one.getsockname()[1]}",
                f"dns.address=127.0.0.1:{datagrams.getsockname()[1]}",
                f"observe.dashboard=127.0.0.1:{two.getsockname()[1]}",
            ],
        ).config
        by_check = {finding.check: finding for finding in ports(config)}
    assert [check for check, it in by_check.items() if it.verdict is Verdict.FAILED] == [
        f"address of proxy {config.bitcoin.proxy[0].name}",
        "address of DNS server",
        "address of dashboard",
    ]
    assert by_check["address of DNS server"].advice.endswith("in [dns]")
    assert by_check["address of dashboard"].advice.endswith("in [observe]")


@pytest.mark.parametrize(
    ("text", "has_one"),
    [
        ('[tor]\ncontrol_password = "secret"\n', True),
        ('[names.rpc]\nusername = "u"\npassword = "secret"\n', True),
        ('[names.rpc.clients]\n"10.0.0.1/32" = "u:secret@10.0.0.1:8336"\n', True),
        ('[names.rpc.clients]\n"10.0.0.1/32" = "10.0.0.1:8336"\n', False),
        ('[tor]\nmode = "managed"\n', False),
    ],
)
def test_passwords_that_others_can_read(tmp_path: Path, text: str, has_one: bool) -> None:
    file = tmp_path / "isoproxy.toml"
    file.write_text(text)
    file.chmod(0o644)
    findings = list(secrets([file]))
    assert verdicts(findings) == [Verdict.FAILED] * has_one
    assert "secret" not in str(findings)
    if has_one:
        assert findings[0].advice == f"chmod o-rwx {file}"
        file.chmod(0o640)
        assert verdicts(list(secrets([file]))) == [Verdict.OK]


def test_a_configuration_that_went_away(tmp_path: Path) -> None:
    assert verdicts(list(secrets([tmp_path / "absent.toml"]))) == [Verdict.FAILED]


def test_permissions(tmp_path: Path) -> None:
    state, admin, path = tmp_path / "state", tmp_path / "admin", tmp_path / "socks"
    config = load(None, [f"listener.0.address=unix:{path}", "listener.0.mode=0600"]).config
    assert verdicts(list(permissions(config, state, admin, running=False))) == [Verdict.OK]
    state.mkdir(mode=0o755)
    admin.touch(mode=0o600)
    findings = list(permissions(config, state, admin, running=True))
    assert verdicts(findings) == [Verdict.FAILED, Verdict.OK, Verdict.FAILED]
    assert findings[0].advice == f"chmod 0700 {state}"
    state.chmod(0o700)
    admin.chmod(0o660)
    path.touch(mode=0o600)
    findings = list(permissions(config, state, admin, running=True))
    assert verdicts(findings) == [Verdict.OK, Verdict.FAILED, Verdict.OK]
    path.chmod(0o666)
    findings = list(permissions(config, state, admin, running=True))
    assert findings[2].advice == f"chmod 0600 {path}"


HOLDS = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
client6 = socket.create_connection(server6.getsockname()[:2])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if "udp" in sys.argv else None
if udp:
    udp.connect(("127.0.0.1", 9))
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if "dns" in sys.argv else None
if dns:
    dns.bind(("127.0.0.1", 0))
    print(dns.getsockname()[1], end=" ")
print(server.getsockname()[1], server6.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holding(*what: str) -> Iterator[tuple[int, list[int]]]:
    """The process id and the ports of a program that holds sockets."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, *what], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process.pid, [int(port) for port in process.stdout.readline().split()]
        process.kill()


def test_the_sockets_of_a_process() -> None:
    with holding() as (pid, (port, port6)):
        peers = {(peer.kind, str(peer.host), peer.port) for peer in sockets_of(pid)}
        assert {("tcp", "127.0.0.1", port), ("tcp", "::1", port6)} <= peers
        assert connections([pid], None).verdict is Verdict.OK


@pytest.mark.parametrize("which", [0, 1])
def test_udp_is_a_defect(which: int) -> None:
    """In whichever of its processes."""
    with holding("udp") as (one, _), holding() as (other, _):
        finding = connections([(one, other), (other, one)][which], None)
    assert finding.verdict is Verdict.FAILED
    assert "UDP" in finding.found


def test_our_own_dns_server_is_no_defect() -> None:
    with holding("dns") as (pid, (port, *_)):
        finding = connections([pid], None, Endpoint.tcp("127.0.0.1", port))
        assert finding.verdict is Verdict.OK
        assert "UDP only of the DNS server" in finding.found
        for other in (None, Endpoint.tcp("127.0.0.1", port + 1), Endpoint.unix("/run/dns")):
            assert connections([pid], None, other).verdict is Verdict.FAILED
    with holding("dns", "udp") as (pid, (port, *_)):
        assert connections([pid], None, Endpoint.tcp("127.0.0.1", port)).verdict is Verdict.FAILED


def test_a_process_that_is_gone_proves_nothing() -> None:
    assert connections([2**22 + 1], None).verdict is Verdict.UNPROVEN


@pytest.mark.parametrize(
    ("destinations", "verdict"), [(0, Verdict.OK), (1, Verdict.OK), (2, Verdict.WARNING)]
)
def test_destinations_that_share_the_identity_without_credentials_are_told(
    destinations: int, verdict: Verdict
) -> None:
    finding = without_credentials(destinations)
    assert finding.verdict is verdict
    assert ("9251" in finding.advice) == (verdict is Verdict.WARNING)
