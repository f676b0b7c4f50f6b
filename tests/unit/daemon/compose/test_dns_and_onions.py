"""What is served beside the listeners, and what is said of it, and to whom."""

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

from isoproxy.config import Config, load
from isoproxy.daemon.compose.dns_and_onions import DnsAndOnions
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import Formatter
from isoproxy.tor.control.connection import Control
from tests.kit.waiting import until
from tests.unit.namecoin.kit import CountingBackend
from tests.unit.tor.scripted import ScriptedTor
from tests.unit.tor.test_onion import ADDED, SERVICE

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
    services = DnsAndOnions(config, isolator, control, lambda _: resolver, out)
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


async def test_the_node_may_be_of_a_custom_signet(tmp_path: Path) -> None:
    node = ("onion_service.0.v2=true", "onion_service.0.network=signet-54d26fbd")
    config = configured(tmp_path, *node, 'bitcoin.signet_challenges=["51"]')
    isolator = Isolator()
    resolver = Resolver(CountingBackend({}), isolator)
    control = Control(Endpoint.unix("/run/tor/control"))
    services = DnsAndOnions(config, isolator, control, lambda _: resolver, StringIO())
    (published,) = services.onions
    assert published.plan.networks.named("signet-54d26fbd").magic.hex() == "54d26fbd"
    await services.close()
    await resolver.close()


async def test_the_dns_server_is_announced_and_follows_the_names() -> None:
    config, out = load(None, ["dns.address=127.0.0.1:0"]).config, StringIO()
    isolator = Isolator()
    resolver = Resolver(CountingBackend({}), isolator)
    control = Control(Endpoint.unix("/nonexistent/control"))
    services = DnsAndOnions(config, isolator, control, lambda _: resolver, out)
    await services.start()
    assert services.dns is not None
    assert out.getvalue() == f"listening dns {services.dns.endpoint}\n"
    services.follow(load(None, ["names.only_onion=true"]).config)
    assert services.dns.responder._policy.only_onion
    await services.close()
    await resolver.close()
