"""The name service of a configuration: settings, start, status, blocks, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.names import DaemonNames
from isoproxy.daemon.settings.names import electrum_settings
from isoproxy.isolation import Isolator
from isoproxy.namecoin.chain.params import MAINNET, REGTEST
from isoproxy.namecoin.electrum.servers import SHIPPED
from isoproxy.namecoin.value.name import BitName
from isoproxy.observe.metrics import Metrics
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrum_server import ElectrumServer
from tests.kit.namecoin.chain import RegtestChain


def test_without_settings_the_light_client_asks_the_shipped_servers() -> None:
    config = load(None, []).config.names
    assert config.backend == "electrum"
    assert not config.allow_clearnet_alias
    settings = electrum_settings(config.electrum, config.timeout_s)
    assert (settings.network, settings.servers, settings.quorum) == (MAINNET, SHIPPED, 2)
    assert settings.max_tip_age == 86_400
    assert settings.ready_wait < settings.deadline < config.timeout_s
    assert (settings.pool.reserve, settings.pool.asked) == (96, 2)
    upkeep_an_hour = settings.sync.connections * 3600 / settings.pool.life
    assert settings.pool.openings_per_hour + upkeep_an_hour <= 60


def test_what_is_set_is_used() -> None:
    server, root = "192.0.2.1:1:s:" + "ab" * 32, "cd" * 32
    config = load(
        None,
        [
            "names.electrum.network=regtest",
            f"names.electrum.servers=['{server}', 'b.onion:1:t', 'c.test:1:s']",
            "names.electrum.quorum=3",
            "names.electrum.pool_size=6",
            "names.electrum.circuits_per_minute=7",
            "names.electrum.anchor_height=5",
            f"names.electrum.anchor_hash={root}",
            "names.electrum.checkpoint_height=4",
            f"names.electrum.checkpoint_root={root}",
        ],
    ).config.names
    settings = electrum_settings(config.electrum, 30)
    assert settings.network is REGTEST
    assert settings.servers[0].pin == bytes.fromhex("ab" * 32)
    assert (settings.quorum, settings.pool.reserve, settings.pool.asked) == (3, 6, 3)
    assert settings.pool.opens_per_minute == 7
    assert settings.anchor is not None
    assert settings.anchor.height == 5
    assert settings.checkpoint is not None
    assert settings.checkpoint.root.hex() == root
    assert settings.max_tip_age is None


class Bench:
    """A daemon's names over two servers of our own, without Tor."""

    def __init__(self, state: Path, servers: list[ElectrumServer]) -> None:
        ports = ", ".join(f"'127.0.0.1:{server.port}:t'" for server in servers)
        config = load(
            None,
            [
                "names.electrum.network=regtest",
                f"names.electrum.servers=[{ports}]",
                "names.electrum.allow_plain=true",
                "names.electrum.confirmations=1",
            ],
        ).config.names
        self.isolator = Isolator()
        self.dialer = DirectDialer()
        self.names = DaemonNames(config, self.dialer, self.isolator, Metrics(), state)
        assert self.names.electrum is not None
        self.light_client = self.names.electrum
        self.key = self.isolator.own_key("someone")

    async def resolve(self, name: str) -> tuple[str | None, bool]:
        """Target, and whether it was cached."""
        found = await self.names.service.resolve(BitName.parse(name), self.key)
        return found.target, found.cached


async def until(test: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not test():  # noqa: ASYNC110  polled states have no event
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def bench(state: Path) -> AsyncIterator[tuple[Bench, list[ElectrumServer]]]:
    chain = RegtestChain.recorded()
    async with ElectrumServer(chain) as first, ElectrumServer(chain) as second:
        made = Bench(state, [first, second])
        try:
            yield made, [first, second]
        finally:
            await made.names.close()


async def test_nothing_is_dialled_before_tor_answers(tmp_path: Path) -> None:
    async with bench(tmp_path) as (daemon, _):
        await asyncio.sleep(0.1)
        assert daemon.dialer.credentials == []
        status = daemon.names.status()
        assert (status["ready"], status["servers"]) == (
            False,
            {"known": 2, "up": 0, "demoted": 0},
        )


async def test_it_synchronises_resolves_and_tells_how_it_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "isoproxy")
    async with bench(tmp_path) as (daemon, _):
        daemon.names.tor_answers()
        assert await daemon.resolve("plain4.bit") == ("192.0.2.10", False)
        assert await daemon.resolve("plain4.bit") == ("192.0.2.10", True)
        await until(lambda: daemon.names.status()["complete"])
        status = daemon.names.status()
        assert (status["tip"], status["target"], status["quorum"]) == (168, 168, 2)
        assert status["servers"] == {"known": 2, "up": 2, "demoted": 0}
        assert status["connections"]["bound"] == 2  # type: ignore[index]  # JSON
        await until(lambda: "headers_complete" in caplog.text)
        assert "plain4" not in caplog.text + str(status)
        opened = len(daemon.dialer.credentials)
        daemon.isolator.new_epoch()
        assert daemon.names.service.cached == 0
        daemon.key = daemon.isolator.own_key("someone")
        assert await daemon.resolve("plain4.bit") == ("192.0.2.10", False)
        assert len(daemon.dialer.credentials) > opened
        assert len(set(daemon.dialer.credentials)) == len(daemon.dialer.credentials)


async def test_a_new_block_ends_what_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoproxy.namecoin.resolve.cached_backend.BLOCK_DELAY_S", 0.0)
    async with bench(tmp_path) as (daemon, servers):
        chain = servers[0].chain
        chain.update(b"d/moving", b'{"ip":"192.0.2.1"}')
        daemon.names.tor_answers()
        assert await daemon.resolve("moving.bit") == ("192.0.2.1", False)
        assert await daemon.resolve("moving.bit") == ("192.0.2.1", True)
        chain.update(b"d/moving", b'{"ip":"192.0.2.2"}')
        for server in servers:
            server.announce()
        await until(lambda: daemon.light_client.chain.tip_height == chain.tip)
        assert await daemon.resolve("moving.bit") == ("192.0.2.2", False)


async def test_what_tor_was_to_blame_for_is_forgiven(tmp_path: Path) -> None:
    async with bench(tmp_path) as (daemon, servers):
        daemon.dialer.dead = {f"127.0.0.1:{server.port}" for server in servers}
        daemon.names.tor_answers()
        scores = daemon.light_client.pool.scores
        now = asyncio.get_running_loop().time
        labels = list(scores.servers)
        await until(lambda: not any(scores.is_due(server, now()) for server in labels))
        daemon.dialer.dead = set()
        daemon.names.tor_answers()
        assert all(scores.is_due(server, now()) for server in labels)
        assert await daemon.resolve("plain4.bit") == ("192.0.2.10", False)
