"""Plans of onion services, and what is said of one that is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.bitcoin.messages import KNOWN_NETWORKS
from isoproxy.config import OnionServiceConfig
from isoproxy.daemon.compose.onions import (
    PublishedService,
    ServicePlan,
    inbound_settings,
    service_plan,
)
from isoproxy.errors import ConfigError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control
from tests.kit.waiting import until
from tests.unit.tor.scripted import ScriptedTor
from tests.unit.tor.test_onion import ADDED, SERVICE

NODE = Endpoint.tcp("127.0.0.1", 8333)


def test_plans() -> None:
    plan = service_plan(
        OnionServiceConfig(
            name="node", ports=(1, 2), target=NODE, key_file="/k", client_auth=("A" * 52,), v2=True
        )
    )
    assert plan == ServicePlan("node", (1, 2), NODE, Path("/k"), ("A" * 52,), True)
    with pytest.raises(ConfigError, match="target is missing"):
        service_plan(OnionServiceConfig(name="web"))


def test_plans_that_cannot_be() -> None:
    control = Control(Endpoint.unix("/run/tor/control"))
    for ports, target, problem in (
        ([80], Endpoint.unix("/run/node"), "TCP address"),
        ([80], Endpoint.tcp("127.0.0.1", 80), "known network"),
    ):
        with pytest.raises(ConfigError, match=problem):
            PublishedService(ServicePlan("x", ports, target, v2=True), control)
    with pytest.raises(ConfigError, match="does not go through Tor"):
        ServicePlan("x", [80], Endpoint.tcp("8.8.8.8", 80))
    nowhere = ServicePlan("x", [8333], NODE, v2=True, network="mainnet2")
    with pytest.raises(ConfigError, match="known are mainnet, testnet3"):
        PublishedService(nowhere, control)
    with pytest.raises(ConfigError, match="x25519"):
        PublishedService(ServicePlan("x", [8333], NODE, clients=["short"], v2=True), control)


async def test_every_port_has_its_line_and_withdrawal_its_command(short_path: Path) -> None:
    add = "ADD_ONION NEW:ED25519-V3 Port=7,127.0.0.1:8333 Port=8,127.0.0.1:8333"
    async with ScriptedTor(short_path / "c", {add: ADDED}) as tor:
        control = Control(Endpoint.unix(str(tor.path)), backoff=Backoff(0.01, 0.05))
        control.start()
        published = PublishedService(ServicePlan("web", (7, 8), NODE), control)
        published.start()
        try:
            assert await published.wait_published() == [
                f"{SERVICE}.onion:7 /onion3/{SERVICE}:7",
                f"{SERVICE}.onion:8 /onion3/{SERVICE}:8",
            ]
        finally:
            await published.stop()
            await control.close()
        await until(lambda: f"DEL_ONION {SERVICE}" in tor.commands)


def test_the_network_is_that_of_the_port_or_the_one_that_is_named() -> None:
    by_port = inbound_settings(ServicePlan("x", [18333], NODE, v2=True))
    assert by_port.network in (KNOWN_NETWORKS.named("mainnet"), KNOWN_NETWORKS.named("testnet3"))
    named = ServicePlan("x", [8333], NODE, v2=True, network="signet", advertise_v2=True)
    settings = inbound_settings(named)
    assert settings.network == KNOWN_NETWORKS.named("signet")
    assert settings.advertise_v2
    assert (settings.node.host, settings.node.port) == ("127.0.0.1", 8333)


async def test_peers_come_to_a_socket_on_loopback_until_it_stops() -> None:
    control = Control(Endpoint.unix("/nonexistent/control"))
    published = PublishedService(ServicePlan("x", [8333], NODE, v2=True), control)
    assert published.listener is not None
    assert published.listener.getsockname()[0] == "127.0.0.1"
    assert published.lines == []
    await published.stop()
    assert published.listener.fileno() == -1
