"""Promise: the doctor proves isolation live, and when something is wrong says what to do."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kit.isoproxy_process import TCP, Isoproxy, NotStarted, Outcome, managed, system
from tests.kit.servers import EchoServer, closed_port
from tests.kit.service import environment
from tests.kit.tornet import Node, TorNetwork
from tests.network.programs import program


@pytest.fixture
def echo(tor_network: TorNetwork) -> Iterator[EchoServer]:
    with EchoServer(tor_network.server_ip) as server:
        yield server


class Finding(NamedTuple):
    verdict: str
    found: str
    advice: str


def doctor(
    proxy: Isoproxy, port: int, *options: str, wrapper: Sequence[str] = ()
) -> tuple[Outcome, dict[str, Finding]]:
    """Run it; returns how it ended and its findings by check."""
    words = ["doctor", "--json", "--target", f"web.test:{port}", *options]
    done = proxy.command(*words, wrapper=wrapper)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    findings = {
        one["check"]: Finding(one["verdict"], one["found"], one["advice"])
        for one in answer["findings"]
    }
    return done, findings


@pytest.mark.parametrize("mode", ["system", "managed"])
def test_all_is_well(tor_network: TorNetwork, echo: EchoServer, tmp_path: Path, mode: str) -> None:
    settings = system(tor_network.client) if mode == "system" else managed(tor_network)
    with Isoproxy(tmp_path, settings) as proxy:
        proxy.wait_ready()
        done, findings = doctor(proxy, echo.port)
        assert done.returncode == 0, done.stdout
        assert {finding.verdict for finding in findings.values()} == {"ok"}
        assert findings["circuits of separate identities"].found == "two tuples, two circuits"
        assert findings["circuits of one identity"].found == "same tuple, same circuit"
        for_people = proxy.command("doctor", "--target", f"web.test:{echo.port}")
        assert for_people.returncode == 0
        assert for_people.stdout.endswith("all is well\n")


def test_without_a_control_port_the_circuits_are_unproven(
    tor_network: TorNetwork, echo: EchoServer, tmp_path: Path
) -> None:
    with Isoproxy(tmp_path, [*system(tor_network.client), "tor.control=none"]) as proxy:
        proxy.wait_ready()
        done, findings = doctor(proxy, echo.port)
        assert done.returncode == 0
        assert findings["circuits of separate identities"].verdict == "unproven"
        assert "tor.control" in findings["circuits of separate identities"].advice


@pytest.fixture
def client(tor_network: TorNetwork) -> Iterator[Node]:
    with tor_network.temporary_client() as node:
        yield node


def test_tor_is_down(client: Node, echo: EchoServer, tmp_path: Path) -> None:
    with Isoproxy(tmp_path, system(client)) as proxy:
        proxy.wait_ready()
        client.kill()
        done, findings = doctor(proxy, echo.port, "--timeout", "2")
        assert done.returncode == 1
        assert findings["Tor's SocksPort"] == (
            "failed",
            "it does not answer",
            "start Tor, or correct tor.socks",
        )
        assert findings["streams through isoproxy"].verdict == "failed"
        assert "isoproxy status" in findings["streams through isoproxy"].advice


def test_tor_is_kept_off_the_network(client: Node, echo: EchoServer, tmp_path: Path) -> None:
    with Isoproxy(tmp_path, system(client)) as proxy:
        proxy.wait_ready()
        client.ctl.check("SETCONF DisableNetwork=1")
        done, findings = doctor(proxy, echo.port, "--timeout", "2")
        assert done.returncode == 1
        assert findings["start of Tor"].found == "its network is switched off"
        assert "DisableNetwork 0" in findings["start of Tor"].advice


def test_tor_is_still_starting(tor_network: TorNetwork, echo: EchoServer, tmp_path: Path) -> None:
    """Its authorities do not answer: nothing is known but where it stands."""
    with closed_port("127.0.0.1") as port:
        nobody = f"DirAuthority nobody orport={port} v3ident={'A' * 40} 127.0.0.1:{port} {'B' * 40}"
        lines = [line for line in tor_network.joining_lines if not line.startswith("DirAuth")]
        settings = ["tor.mode=managed", "tor.extra_torrc=" + json.dumps([*lines, nobody])]
        with Isoproxy(tmp_path, settings) as proxy:
            proxy.wait_for("control", lambda: proxy.status()["tor"]["control"] == "ready", 60)
            done, findings = doctor(proxy, echo.port, "--timeout", "2")
    assert done.returncode == 1
    assert findings["Tor's SocksPort"].verdict == "ok"
    assert findings["start of Tor"].verdict in ("warning", "failed")
    assert "%" in findings["start of Tor"].found
    assert findings["clock"] == (
        "unproven",
        "Tor has no consensus yet",
        "wait until Tor has bootstrapped",
    )


def test_a_wrong_clock(tor_network: TorNetwork, echo: EchoServer, tmp_path: Path) -> None:
    """As it would be if Tor's consensus had come while the clock was right."""
    with Isoproxy(tmp_path, system(tor_network.client)) as proxy:
        proxy.wait_ready()
        done, findings = doctor(proxy, echo.port, wrapper=["faketime", "-f", "-2d"])
    assert done.returncode == 1
    assert findings["clock"].verdict == "failed"
    assert findings["clock"].advice == "set the clock of this machine"


def test_a_wrong_password(tor_network: TorNetwork, echo: EchoServer, tmp_path: Path) -> None:
    hashed = program("tor", "--hash-password", "right").splitlines()[-1]
    options = f"HashedControlPassword {hashed}\n"
    with tor_network.temporary_client(options) as node, Isoproxy(tmp_path, system(node)) as proxy:
        proxy.wait_ready()
        node.ctl.check("SETCONF CookieAuthentication=0")
        right = doctor(proxy, echo.port, "--set", "tor.control_password=right")[1]
        wrong = doctor(proxy, echo.port, "--set", "tor.control_password=wrong")[1]
    assert right["Tor's ControlPort"].verdict == "ok", right["Tor's ControlPort"]
    assert wrong["Tor's ControlPort"].verdict == "failed"
    assert wrong["Tor's ControlPort"].advice == "set the one Tor was given"


@contextlib.contextmanager
def stemns(node: Node, directory: Path) -> Iterator[None]:
    """The controller, attaching the streams of `node`."""
    config, said = directory / "stemns.toml", directory / "stemns.out"
    config.write_text(f'[stemns]\ncontrol = "unix:{node.control_path}"\n')
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stemns_plugin", "-c", str(config)],
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=out,
        )
    try:
        deadline = time.monotonic() + 30
        while "streams are served" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_streams_left_to_a_controller(client: Node, echo: EchoServer, tmp_path: Path) -> None:
    """With one at work all is well; a dead one leaves every stream hanging."""
    with Isoproxy(tmp_path, system(client)) as proxy:
        proxy.wait_ready()
        client.ctl.check("SETCONF __LeaveStreamsUnattached=1")
        with stemns(client, tmp_path):
            findings = doctor(proxy, echo.port)[1]
            assert findings["attachment of streams"].verdict == "ok"
            assert "one is at work" in findings["attachment of streams"].found
        done, findings = doctor(proxy, echo.port, "--timeout", "2")
        assert done.returncode == 1
        assert findings["attachment of streams"].verdict == "failed"
        assert "start stemns" in findings["attachment of streams"].advice


def test_a_port_that_does_not_isolate_is_found_out(
    tor_network: TorNetwork, echo: EchoServer, tmp_path: Path
) -> None:
    with tor_network.temporary_client("SocksPort unix:{dir}/merged NoIsolateSOCKSAuth") as node:
        settings = [*system(node), f"tor.socks=unix:{node.dir}/merged"]
        with Isoproxy(tmp_path, settings) as proxy:
            proxy.wait_ready()
            done, findings = doctor(proxy, echo.port)
            assert done.returncode == 1
            assert findings["circuits of separate identities"].verdict == "failed"
            assert "shared a circuit" in findings["circuits of separate identities"].found
            assert "NoIsolateSOCKSAuth" in findings["circuits of separate identities"].advice


def test_the_target_does_not_answer(tor_network: TorNetwork, tmp_path: Path) -> None:
    with (
        closed_port(tor_network.server_ip) as port,
        Isoproxy(tmp_path, system(tor_network.client)) as proxy,
    ):
        proxy.wait_ready()
        done, findings = doctor(proxy, port)
        assert done.returncode == 1
        assert "--target" in findings["streams through isoproxy"].advice


def test_isoproxy_does_not_run(tor_network: TorNetwork, echo: EchoServer, tmp_path: Path) -> None:
    with Isoproxy(tmp_path, system(tor_network.client)) as proxy:
        proxy.stop()
        done, findings = doctor(proxy, echo.port)
        assert done.returncode == 1
        assert findings["isoproxy"].advice == "isoproxy run"


def test_merged_listeners_are_refused_by_the_configuration(
    tor_network: TorNetwork, tmp_path: Path
) -> None:
    settings = [*system(tor_network.client), "tor.credentials=verbatim"]
    with (
        pytest.raises(NotStarted, match=r"tor.credentials.*would merge listeners"),
        Isoproxy(tmp_path, settings, listeners=[TCP, TCP]),
    ):
        raise AssertionError("it started")
