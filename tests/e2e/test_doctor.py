"""Promise: the doctor proves isolation live, and when something is wrong says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kit.isoproxy_process import TCP, Isoproxy, NotStarted, Outcome, managed, system
from tests.kit.servers import EchoServer, closed_port
from tests.kit.tornet import Node, TorNetwork


@pytest.fixture
def echo(tor_network: TorNetwork) -> Iterator[EchoServer]:
    with EchoServer(tor_network.server_ip) as server:
        yield server


class Finding(NamedTuple):
    verdict: str
    found: str
    advice: str


def doctor(proxy: Isoproxy, port: int, *options: str) -> tuple[Outcome, dict[str, Finding]]:
    """Run it; returns how it ended and its findings by check."""
    done = proxy.command("doctor", "--json", "--target", f"web.test:{port}", *options)
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


def test_nobody_attaches_the_streams(client: Node, echo: EchoServer, tmp_path: Path) -> None:
    """What a dead controller leaves behind: every stream hangs."""
    with Isoproxy(tmp_path, system(client)) as proxy:
        proxy.wait_ready()
        client.ctl.check("SETCONF __LeaveStreamsUnattached=1")
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
