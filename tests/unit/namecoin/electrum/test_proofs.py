"""Proofs of known blocks: from whoever delivers them; what is told of those who do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from isoproxy.isolation import Isolator
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.header_range import HeaderRanges, SyncSettings
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.proofs import Proofs
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.upkeep import Upkeep
from tests.kit.electrum_server import ElectrumServer, Fault, Lie, honest
from tests.kit.memory_net import MemoryNet
from tests.kit.namecoin.chain import RECORDED_TIP, RegtestChain
from tests.kit.namecoin.forging import withholding
from tests.kit.namecoin.mining import MergeMining
from tests.kit.waiting import until

CHAIN = RegtestChain.recorded()
SCATTERED = [3, 10, 11, 50, 51, 52, 90, 120]


def known(height: int) -> bytes:
    return CHAIN.blocks[height].header[:80]


class Bench:
    """Connected servers, and proofs asked of them."""

    def __init__(self, servers: Sequence[ElectrumServer]) -> None:
        self.servers = [parse_server(f"s{n}.example:1:t", f"op{n}") for n in range(len(servers))]
        labels = [server.label for server in self.servers]
        net = MemoryNet(dict(zip(labels, servers, strict=True)))
        pool = ServerPool(
            net,
            Isolator(),
            REGTEST,
            Scores(self.servers),
            net,
            PoolSettings(openings_per_hour=1e-6),
        )
        self.upkeep = Upkeep(pool, len(servers), 2.0, lambda: None)
        self.proofs = Proofs(
            REGTEST,
            HeaderRanges(SyncSettings(timeout=1.0)),
            self.upkeep,
            self.upkeep.blame,
            lambda count: 0.5,
        )

    async def proven(self, heights: Sequence[int], at_once: int = 4) -> list[int]:
        checking = self.proofs.check(heights, known, at_once)
        async with contextlib.aclosing(checking) as parts:
            return [height async for part in parts for height in part]

    def judged(self) -> list[tuple[int, int]]:
        """Lies and failures of each server."""
        health = [self.upkeep.scores.of(server) for server in self.servers]
        return [(one.lies, one.failures) for one in health]


@contextlib.asynccontextmanager
async def running(*servers: ElectrumServer) -> AsyncIterator[Bench]:
    bench = Bench(servers)
    task = asyncio.create_task(bench.upkeep.run())
    try:
        await until(lambda: len(bench.upkeep.sessions) == len(servers))
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_side_by_side_in_ranges_and_one_by_one_where_they_are_not() -> None:
    server = ElectrumServer(CHAIN)
    async with running(server) as bench:
        assert await bench.proven(range(20, 30)) == list(range(20, 30))
        assert await bench.proven(SCATTERED) == SCATTERED
    ranges = [params for method, params in server.requests if method.endswith("headers")]
    single = [params[0] for method, params in server.requests if method.endswith("block.header")]
    assert ranges == [[20, 4], [24, 4], [28, 2]]
    assert single == SCATTERED


def with_proof(mining: MergeMining) -> Lie:
    """A server whose header 50 has another proof."""

    def lie(method: str, params: list[Any], result: Any) -> Any:
        if method == "blockchain.block.header" and params[0] == 50:
            return mining.mine(known(50)).hex()
        return result

    return lie


async def test_a_proof_that_does_not_hold_is_a_lie_and_comes_from_another() -> None:
    liar = ElectrumServer(CHAIN, with_proof(MergeMining(enough=False)))
    async with running(liar) as bench:
        assert 50 not in await bench.proven(SCATTERED)
        assert bench.judged() == [(1, 0)]
    async with running(liar, ElectrumServer(CHAIN)) as bench:
        assert await bench.proven(SCATTERED) == SCATTERED
        assert bench.judged()[1] == (0, 0)


async def test_what_one_withholds_comes_from_another_and_if_from_none_it_is_not_proven() -> None:
    mean = ElectrumServer(CHAIN, withholding(lambda height: height == 50))
    async with running(mean, ElectrumServer(CHAIN)) as bench:
        assert await bench.proven(SCATTERED) == SCATTERED
    async with running(mean) as bench:
        assert 50 not in await bench.proven(SCATTERED)
        assert bench.judged() == [(0, 1)]


async def test_a_server_on_another_branch_is_no_liar() -> None:
    rival = RegtestChain(CHAIN.blocks)
    rival.rewind(100)
    rival.mine_empty(RECORDED_TIP - 100)
    async with running(ElectrumServer(rival)) as bench:
        assert await bench.proven(SCATTERED) == SCATTERED[:4]
        assert bench.judged() == [(0, 0)]
        assert len(bench.upkeep.sessions) == 1


async def test_who_has_not_the_height_is_not_asked_for_it() -> None:
    short = RegtestChain(CHAIN.blocks)
    short.rewind(60)
    servers = ElectrumServer(short), ElectrumServer(CHAIN)
    async with running(*servers) as bench:
        assert await bench.proven(range(40, 100)) == list(range(40, 100))
        assert bench.judged() == [(0, 0), (0, 0)]
    async with running(servers[0]) as bench:
        assert await bench.proven(range(40, 100)) == list(range(40, 61))


async def test_other_headers_than_were_asked_for_prove_nothing() -> None:
    def twice(method: str, params: list[Any], result: Any) -> Any:
        return 2 * result if method == "blockchain.block.header" else result

    def nothing(method: str, params: list[Any], result: Any) -> Any:
        return "" if method == "blockchain.block.header" else result

    for lie, judged in ((twice, (0, 0)), (nothing, (1, 0))):
        async with running(ElectrumServer(CHAIN, lie)) as bench:
            assert await bench.proven(SCATTERED) == []
            assert bench.judged() == [judged]


async def test_who_refuses_because_it_was_too_much_is_no_liar() -> None:
    def refuse(method: str, params: list[Any], result: Any) -> Any:
        if method == "blockchain.block.header":
            raise Fault(-101)
        return honest(method, params, result)

    async with running(ElectrumServer(CHAIN, refuse)) as bench:
        assert await bench.proven(SCATTERED) == []
        assert bench.judged() == [(0, 1)]
