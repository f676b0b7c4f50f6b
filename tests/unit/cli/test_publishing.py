"""`isoproxy publish`: which services can be, and whose control port is asked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from isoproxy.bitcoin.messages import KNOWN_NETWORKS
from isoproxy.cli import publishing
from isoproxy.config import load
from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.onion import OnionStage, OnionState


def options(**given: Any) -> argparse.Namespace:
    usual: dict[str, Any] = {
        "target": "127.0.0.1:8333",
        "port": [],
        "key_file": None,
        "client": [],
        "v2": False,
        "network": None,
        "advertise_v2": False,
    }
    return argparse.Namespace(**usual | given)


def test_the_port_is_that_of_the_target_unless_others_are_named() -> None:
    plan = publishing._plan(options())
    assert (plan.ports, plan.target) == ([8333], Endpoint.tcp("127.0.0.1", 8333))
    assert publishing._plan(options(port=[80, 443])).ports == [80, 443]
    assert publishing._plan(options(target="unix:/run/web", port=[80])).ports == [80]
    node = publishing._plan(options(v2=True, network="signet", advertise_v2=True))
    assert (node.v2, node.network, node.advertise_v2) == (True, "signet", True)
    assert node.networks == KNOWN_NETWORKS


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"network": "mainnet"}, "add --v2"),
        ({"advertise_v2": True}, "add --v2"),
        ({"target": "none"}, "address of a local service"),
        ({"target": "unix:/run/web"}, "--port"),
        ({"target": "192.0.2.1:80"}, "does not go through Tor"),
    ],
)
def test_what_cannot_be_published(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        publishing._plan(options(**given))


def test_without_a_running_isoproxy_its_tor_to_come_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert publishing._state_of_running(load(None, []).config) == tmp_path / "state"
    assert "its tor is waited for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (OnionState(OnionStage.REFUSED, "why"), "isoproxy: why\n"),
        (OnionState(OnionStage.WAITING), "isoproxy: waiting for tor\n"),
        (OnionState(OnionStage.PUBLISHED), "isoproxy: published\n"),
        (OnionState(OnionStage.PUBLISHED, "late"), "isoproxy: published; late\n"),
    ],
)
def test_the_person_who_waits_is_told(
    state: OnionState, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publishing._tell(state)
    assert capsys.readouterr() == ("", line)
