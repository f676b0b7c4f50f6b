"""`isoproxy doctor` proves a real Tor."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.kit.service import Outcome, Service, running
from tests.kit.tornet import TorNetwork


def by_check(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in json.loads(outcome.out)["findings"]}


def network_settings(network: TorNetwork, *more: str) -> list[str]:
    client = network.client
    settings = [
        "tor.mode=system",
        "tor.socks={}:{}".format(*client.socks),
        "tor.control={}:{}".format(*client.controlport),
        "listener.0.address=127.0.0.1:0",
        "names.backend=none",
        *more,
    ]
    return [word for setting in settings for word in ("--set", setting)]


async def prove(network: TorNetwork, service: Service, *settings: str) -> Outcome:
    """Run the doctor with a server of ours as the target."""
    with socket.create_server((network.server_ip, 0)) as server:  # the kernel accepts
        target = f"web.test:{server.getsockname()[1]}"
        return await service.ask("doctor", *settings, "--target", target, "--json")


async def test_isolation_is_proven_on_a_real_tor(tmp_path: Path, tor_network: TorNetwork) -> None:
    settings = network_settings(tor_network)
    async with running(tmp_path, *settings) as service:
        outcome = await prove(tor_network, service, *settings)
    found = by_check(outcome)
    assert outcome.code == 0, outcome.out
    assert {one["verdict"] for one in found.values()} == {"ok"}, outcome.out
    assert found["circuits of separate identities"]["found"] == "two tuples, two circuits"
    assert found["circuits of one identity"]["found"] == "same tuple, same circuit"


async def test_a_listener_that_does_not_isolate_is_found_out(
    tmp_path: Path, tor_network: TorNetwork
) -> None:
    settings = network_settings(tor_network, "listener.0.isolate=[]")
    async with running(tmp_path, *settings) as service:
        outcome = await prove(tor_network, service, *settings)
    assert outcome.code == 1
    assert by_check(outcome)["circuits of separate identities"]["verdict"] == "failed"
