"""Connections for headers: begun with whoever answers first.  On a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from isoproxy.errors import DialError, RemoteProtocolError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.upkeep import Upkeep
from tests.kit.electrum_server import ElectrumServer
from tests.kit.memory_net import MemoryNet
from tests.kit.namecoin.chain import RegtestChain

pytestmark = pytest.mark.virtual_clock(grace_s=0)

CHAIN = RegtestChain.recorded()
BESIDE_S = 2.0


class Bench:
    """`count` servers, of which those numbered in `silent` never answer."""

    def __init__(self, count: int, silent: set[int]) -> None:
        self.servers = [parse_server(f"s{n}.example:1:t", f"operator{n}") for n in range(count)]
        self.silent = {self.servers[n].label for n in silent}
        by_label = {server.label: ElectrumServer(CHAIN) for server in self.servers}
        self.net = MemoryNet(by_label, answers=lambda seen, method: seen.label not in self.silent)
        isolator = Isolator()
        scores = Scores(self.servers)
        pool = ServerPool(
            self.net, isolator, REGTEST, scores, self.net, PoolSettings(openings_per_hour=1e-6)
        )
        self.changes = 0
        self.upkeep = Upkeep(pool, 3, BESIDE_S, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def up(self) -> set[str]:
        return set(self.upkeep.sessions)

    def answering(self) -> set[str]:
        return {server.label for server in self.servers} - self.silent


@contextlib.asynccontextmanager
async def running(count: int, silent: set[int]) -> AsyncIterator[Bench]:
    bench = Bench(count, silent)
    task = asyncio.create_task(bench.upkeep.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not bench.upkeep.sessions


async def test_the_first_that_answers_is_there_at_once() -> None:
    async with running(3, {0, 1}) as bench:
        await asyncio.sleep(0.1)
        assert bench.up() == {bench.servers[2].label}
        assert bench.changes


async def test_silent_ones_are_tried_beside_and_hold_nobody_up() -> None:
    """All but two of twelve are silent: every one is tried within three steps."""
    async with running(12, set(range(10))) as bench:
        await asyncio.sleep(3 * BESIDE_S + 1.5)
        assert bench.up() == bench.answering()


async def test_no_more_are_tried_than_it_takes() -> None:
    async with running(12, set()) as bench:
        await asyncio.sleep(100.0)
        assert len(bench.up()) == 3
        assert len(bench.net.seen) == 3


async def test_tries_are_given_up_when_there_are_enough_and_count_as_failures() -> None:
    async with running(6, {0, 1, 2}) as bench:
        await asyncio.sleep(4 * BESIDE_S)
        assert bench.up() == bench.answering()
        for server in bench.servers[:3]:
            tried = [one for one in bench.net.seen if one.label == server.label]
            ended = [one.ended for one in tried]
            assert None not in ended
            late = [one for one in tried if one.ended and one.ended - one.opened >= BESIDE_S]
            assert (bench.upkeep.scores.of(server).failures > 0) == bool(late)


async def test_who_answered_the_last_time_comes_first() -> None:
    async with running(12, set()) as bench:
        await asyncio.sleep(1.0)
        once = bench.up()
        for label in once:
            bench.upkeep.close(label)
        await asyncio.sleep(1.0)
        assert bench.up() == once


async def test_what_a_server_did_decides_when_it_is_tried_again() -> None:
    async with running(1, set()) as bench:
        (server,) = bench.servers
        health = bench.upkeep.scores.of(server)
        await asyncio.sleep(0.1)
        bench.upkeep.blame(server.label, DialError())
        assert (health.failures, health.lies) == (1, 0)
        await asyncio.sleep(10.0)
        bench.upkeep.delivered(server.label)
        assert health.failures == 0
        bench.upkeep.blame(server.label, RemoteProtocolError("a lie"))
        assert health.lies == 1
        await asyncio.sleep(1000.0)
        assert not bench.up()
        bench.upkeep.blame(server.label, DialError())
        assert health.failures == 0


async def test_a_connection_that_ends_is_replaced() -> None:
    async with running(4, set()) as bench:
        await asyncio.sleep(0.1)
        label, (_, session) = next(iter(bench.upkeep.sessions.items()))
        session.close()
        await asyncio.sleep(2.0)
        assert len(bench.up()) == 3
        assert bench.upkeep.sessions.get(label, (None, None))[1] is not session
