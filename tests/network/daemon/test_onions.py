"""Onion services of the configuration; one in front of a Bitcoin node that speaks v1."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import TextIO

import pytest

from isoproxy.bitcoin.v1 import SERVICE_P2P_V2, VERSION, parse_version
from isoproxy.config import Config, OnionServiceConfig, load
from isoproxy.daemon.compose.onions import PublishedService, ServicePlan, service_plan
from isoproxy.daemon.compose.services import Services
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import Formatter
from isoproxy.tor.control.connection import Control
from tests.kit.dial import Refused, dial
from tests.kit.tornet import TorNetwork
from tests.kit.waiting import until
from tests.process.cli.test_publish import publishing
from tests.unit.bitcoin.ends import V1End, V2End, send
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, short, v1
from tests.unit.bitcoin.test_v1 import version_payload
from tests.unit.namecoin.kit import CountingBackend
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


async def test_the_node_may_be_of_a_custom_signet(tmp_path: Path) -> None:
    node = ("onion_service.0.v2=true", "onion_service.0.network=signet-54d26fbd")
    config = configured(tmp_path, *node, 'bitcoin.signet_challenges=["51"]')
    isolator = Isolator()
    resolver = Resolver(CountingBackend({}), isolator)
    control = Control(Endpoint.unix("/run/tor/control"))
    services = Services(config, isolator, control, lambda _: resolver, StringIO())
    (published,) = services.onions
    assert published.plan.networks.named("signet-54d26fbd").magic.hex() == "54d26fbd"
    await services.close()
    await resolver.close()


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


ADD = "ADD_ONION NEW:ED25519-V3 Port=7,127.0.0.1:8333"


def configured(directory: Path, *settings: str) -> Config:
    """A configuration with one service, `web`."""
    file = directory / "isoproxy.toml"
    file.write_text('[[onion_service]]\nname = "web"\nports = [7]\ntarget = "127.0.0.1:8333"\n')
    return load(file, settings).config


@contextlib.asynccontextmanager
async def serving(config: Config, tor: ScriptedTor, out: TextIO) -> AsyncIterator[None]:
    """The services of `config` at `tor`."""
    control = Control(Endpoint.unix(str(tor.path)), backoff=Backoff(0.01, 0.05))
    control.start()
    isolator = Isolator()
    resolver = Resolver(CountingBackend({}), isolator)
    services = Services(config, isolator, control, lambda _: resolver, out)
    await services.start()
    try:
        yield
    finally:
        await services.close()
        await resolver.close()
        await control.close()


async def test_a_service_that_tor_refuses_is_in_the_log(short_path: Path) -> None:
    log = StringIO()
    refusal = b"550 Onion address collision\r\n"
    handler = logging.StreamHandler(log)
    handler.setFormatter(Formatter())
    logging.getLogger("isoproxy").addHandler(handler)
    try:
        async with (
            ScriptedTor(short_path / "c", {ADD: refusal}) as tor,
            serving(configured(short_path), tor, StringIO()),
        ):
            await until(lambda: ADD in tor.commands)
            await until(lambda: "web" in log.getvalue())
    finally:
        logging.getLogger("isoproxy").removeHandler(handler)
    assert "level=warn " in log.getvalue()
    assert "another program may publish it" in log.getvalue()


@pytest.mark.parametrize("safe", [True, False])
async def test_the_journal_does_not_learn_where_a_service_is(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    config = configured(short_path, f"observe.safe_logging={str(safe).lower()}")
    journal, end = socket.socketpair()
    with journal, end, end.makefile("w") as out:
        async with ScriptedTor(short_path / "c", {ADD: ADDED}) as tor, serving(config, tor, out):
            line = (await asyncio.to_thread(journal.recv, 1000)).decode()
    assert line.startswith("published web ")
    assert (SERVICE in line) is not safe


async def stream(network: TorNetwork, host: str, port: int) -> socket.socket:
    """Through the network's client tor, within a minute of tries."""
    for attempt in range(30):
        try:
            sock = await asyncio.to_thread(
                dial, network.client.socks, host, port, user=b"peer", password=b"%d" % attempt
            )
        except (Refused, OSError):
            await asyncio.sleep(0.5)
        else:
            sock.setblocking(False)
            return sock
    raise AssertionError("the onion service was not reached")


@pytest.mark.parametrize("advertise", [True, False])
async def test_a_node_that_speaks_v1_is_reached_by_v2_over_an_onion_service(
    short_path: Path, tor_network: TorNetwork, advertise: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.setblocking(False)
        words = [f"127.0.0.1:{node.getsockname()[1]}", "--v2", "--port", "18333"]
        words += ["--network", "mainnet", *(["--advertise-v2"] if advertise else [])]
        async with publishing(short_path, tor_network.exits[1], *words) as published:
            host, _, port = published.address.rpartition(":")
            sock = await stream(tor_network, host, int(port))
            peer = V2End(sock, initiator=True)
            await peer.shake()
            await peer.send(LONG_VERSION)
            accepted, _ = await asyncio.get_running_loop().sock_accept(node)
            local = V1End(accepted)
            assert await local.message() == (VERSION, version_payload())
            await send(local.sock, HELLO + v1("ping", bytes(8)))
            services = parse_version((await peer.contents())[13:]).services
            assert bool(services & SERVICE_P2P_V2) is advertise
            assert await peer.contents() == short("ping", bytes(8))
            sock.close()
            local.sock.close()
