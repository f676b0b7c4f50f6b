from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from isoproxy.errors import DialError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.chain import merkle, transaction
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.params import REGTEST, Anchor, ChainParams, hash_from_hex
from isoproxy.namecoin.chain.store import HeaderStore
from isoproxy.namecoin.chain.transaction import double_sha256
from isoproxy.namecoin.electrum import scores
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.header_sync import HeaderSync
from isoproxy.namecoin.electrum.pins import PinStore
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.tls import TlsPolicy
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrum_server import ElectrumServer, Fault, Lie, Silence, honest
from tests.kit.namecoin.chain import EXPIRY, RECORDED_TIP, Block, RegtestChain
from tests.kit.namecoin.mining import AUXPOW_VERSION, PLAIN_VERSION, MergeMining, header_bytes
from tests.kit.waiting import until
from tests.unit.namecoin.chain.turns import most_per_turn

pytestmark = pytest.mark.virtual_clock
SMALL = SyncSettings(chunk=20, timeout=5.0, idle=0.3)
POOL = PoolSettings(reserve=0, wait=5.0, open_timeout=5.0, opens_per_minute=6000)
HEADERS = "blockchain.block.headers"


class Bench:
    """A synchronisation over servers of ours; started by `running`."""

    def __init__(
        self,
        servers: list[ElectrumServer],
        anchor: Anchor | None,
        directory: Path | None,
        settings: SyncSettings,
        network: ChainParams,
    ) -> None:
        self.isolator = Isolator()
        self.servers = [
            parse_server(f"127.0.0.1:{server.port}:t", f"operator{n}")
            for n, server in enumerate(servers)
        ]
        self.chain = HeaderChain(network, anchor)
        self.pool = ServerPool(
            DirectDialer(),
            self.isolator,
            network,
            Scores(self.servers),
            TlsPolicy(PinStore()),
            POOL,
        )
        self.store = (
            HeaderStore(directory, network, self.chain.anchor) if directory is not None else None
        )
        clock = servers[0].chain
        self.sync = HeaderSync(
            self.chain,
            self.store,
            self.pool,
            settings,
            wall_clock=lambda: clock.blocks[-1].time + 600.0,
        )
        self.scores = self.sync.scores

    async def until_tip(self, tip: int, timeout: float = 30.0) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.chain.tip_height != tip:  # noqa: ASYNC110  it has no event
                    await asyncio.sleep(0.01)
        assert self.chain.tip_height == tip

    async def until_complete(self, timeout: float = 30.0) -> None:
        async with asyncio.timeout(timeout):
            await self.sync.ready.wait()
            while not self.sync.progress().is_complete:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    *servers: ElectrumServer,
    anchor: Anchor | None = None,
    directory: Path | None = None,
    settings: SyncSettings = SMALL,
    network: ChainParams = REGTEST,
) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server)
        bench = Bench(list(servers), anchor, directory, settings, network)
        bench.sync.restore()
        tasks = [asyncio.create_task(bench.pool.run()), asyncio.create_task(bench.sync.run())]
        try:
            yield bench
        finally:
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await bench.pool.close()
            if bench.store is not None:
                bench.store.close()


def on_headers(change: Any) -> Lie:
    """Change what a server says when asked for headers: `change(start, result)`."""

    def lie(method: str, params: list[Any], result: Any) -> Any:
        return change(params[0], result) if method == HEADERS else result

    return lie


async def test_forward_from_the_first_block_spread_over_the_servers() -> None:
    chain = RegtestChain.recorded()
    servers = [ElectrumServer(chain) for _ in range(3)]
    async with running(*servers) as bench:
        await bench.until_complete()
        assert bench.chain.tip_height == RECORDED_TIP
        assert bench.chain.block_hash(RECORDED_TIP)[::-1].hex() == chain.blocks[-1].block_hash
        asked = [sum(method == HEADERS for method, _ in server.requests) for server in servers]
        assert min(asked) >= 1
        ranges = sorted(
            params[0] for server in servers for method, params in server.requests
            if method == HEADERS and params[0]
        )  # fmt: skip
        assert ranges == list(range(1, RECORDED_TIP + 1, 20))


@pytest.mark.parametrize("anchored", [False, True])
async def test_a_range_that_is_too_long_for_a_server_is_asked_for_in_parts(
    anchored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proofs can be as large as a block: two in one answer are more than servers send."""

    def lie(method: str, params: list[Any], result: Any) -> Any:
        if method == HEADERS and params[0] <= 145 < params[0] + params[1] and params[1] > 1:
            raise Fault(1)
        return result

    monkeypatch.setattr(scores, "FIRST_RETRY_S", 0.001)
    chain = RegtestChain.recorded()
    server = ElectrumServer(chain, lie=lie)
    anchor = Anchor(164, hash_from_hex(chain.blocks[164].block_hash)) if anchored else None
    async with running(server, anchor=anchor) as bench:
        await bench.until_complete()
        assert bench.chain.tip_height == RECORDED_TIP
    counts = [params[1] for method, params in server.requests if method == HEADERS]
    assert counts.count(1) >= 1
    assert max(counts[counts.index(1) :]) > 1


async def test_backward_from_a_young_anchor_as_far_as_names_live() -> None:
    chain = RegtestChain.recorded()
    anchor = Anchor(160, hash_from_hex(chain.blocks[160].block_hash))
    settings = replace(SMALL, chunk=5)
    async with running(ElectrumServer(chain), anchor=anchor, settings=settings) as bench:
        await bench.sync.ready.wait()
        assert bench.sync.progress().base <= 150
        await bench.until_complete()
        assert bench.chain.base_height == RECORDED_TIP - EXPIRY
        for height in (bench.chain.base_height, 150, 160, RECORDED_TIP):
            assert bench.chain.block_hash(height)[::-1].hex() == chain.blocks[height].block_hash


@pytest.mark.parametrize("cuts_right", [True, False])
async def test_below_the_anchor_bare_headers_are_taken_of_those_that_cut_right(
    cuts_right: bool,
) -> None:
    """As ElectrumX 1.16 does, and 1.19 does not: that is no lie."""
    chain = RegtestChain.recorded()
    anchor = Anchor(160, hash_from_hex(chain.blocks[160].block_hash))
    server = ElectrumServer(chain, cuts_right=cuts_right)
    async with running(server, anchor=anchor) as bench:
        await bench.until_complete()
        assert bench.chain.base_height == RECORDED_TIP - EXPIRY
        health = bench.scores.of(bench.servers[0])
        assert (health.lies, health.failures, server.connections) == (0, 0, 1)
    asked = [params for method, params in server.requests if method == HEADERS]
    below = [params for params in asked if params[0] <= 160]
    if cuts_right:
        assert [params[2:] for params in below] == [[RECORDED_TIP]] * len(below)
    else:
        assert [len(params) for params in below] == [3] + [2] * (len(below) - 1)
    assert all(len(params) == 2 for params in asked if params[0] > 160)


async def test_a_server_that_never_answers_holds_no_round_up() -> None:
    """Of three, two are silent from the start: the third is begun with, at once."""

    def nothing(method: str, params: list[Any], result: Any) -> Any:
        raise Silence

    chain = RegtestChain.recorded()
    servers = [
        ElectrumServer(chain, nothing),
        ElectrumServer(chain, nothing),
        ElectrumServer(chain),
    ]
    async with running(*servers) as bench:
        await bench.until_tip(RECORDED_TIP, timeout=2.0)
        chain.mine_empty(1)
        servers[2].announce()
        await bench.until_tip(RECORDED_TIP + 1, timeout=1.0)


async def test_a_range_that_is_late_is_asked_of_another_server_beside() -> None:
    chain = RegtestChain.recorded()

    def nothing(start: int, result: Any) -> Any:
        raise Silence

    servers = ElectrumServer(RegtestChain(chain.blocks)), ElectrumServer(chain)
    settings = replace(SMALL, timeout=60.0, beside=0.2)
    async with running(*servers, settings=settings) as bench:
        await bench.until_complete()
        servers[0].lie = on_headers(nothing)
        chain.mine_empty(1)
        servers[0].chain = chain
        servers[0].announce()
        await until(lambda: (HEADERS, [RECORDED_TIP + 1, 1]) in servers[0].requests)
        servers[1].announce()
        await until(lambda: bench.chain.tip_height == RECORDED_TIP + 1, seconds=5.0)


def on_top(chain: RegtestChain, version: int) -> Block:
    """A block without transactions, merge-mined if its version says so."""
    before = chain.blocks[-1]
    previous = bytes.fromhex(before.block_hash)[::-1]
    plain = header_bytes(version, previous, bytes(32), before.time + 1)
    header = plain if version == PLAIN_VERSION else MergeMining().mine(plain)
    return Block(b"", header, double_sha256(plain)[::-1].hex(), {})


async def test_the_way_back_at_its_length_on_the_main_network(tmp_path: Path) -> None:
    """36,000 blocks by their links alone, the newest first; kept, and restored at once."""
    chain = RegtestChain.recorded()
    for version, count in ((PLAIN_VERSION, 36_100), (AUXPOW_VERSION, 20)):
        for _ in range(count):
            chain.blocks.append(on_top(chain, version))
    height = chain.tip - 20
    anchor = Anchor(height, hash_from_hex(chain.blocks[height].block_hash))
    network = replace(REGTEST, expiry=36_000)
    settings = SyncSettings(cost_capacity=1e9)
    servers = [ElectrumServer(chain) for _ in range(3)]
    where: dict[str, Any] = {
        "anchor": anchor,
        "directory": tmp_path,
        "settings": settings,
        "network": network,
    }
    async with running(*servers, **where) as bench:
        await bench.sync.ready.wait()
        assert bench.sync.progress().base > height - 2 * settings.chunk
        await bench.until_complete(timeout=100.0)
        assert (bench.chain.base_height, bench.chain.tip_height) == (chain.tip - 36_000, chain.tip)
    for server in servers:
        assert [1 for method, _ in server.requests if method == HEADERS]
    async with running(ElectrumServer(chain), **where) as bench:
        assert bench.chain.base_height == chain.tip - 36_000


async def test_new_blocks_are_followed() -> None:
    chain = RegtestChain.recorded()
    server = ElectrumServer(chain)
    async with running(server) as bench:
        await bench.until_complete()
        chain.mine_empty(30)
        server.announce()
        await bench.until_tip(RECORDED_TIP + 30)


@pytest.mark.parametrize("depth", [1, 7, 40, 100])
async def test_the_branch_with_more_work_wins_however_deep_it_forks(
    depth: int, tmp_path: Path
) -> None:
    chain = RegtestChain.recorded()
    rival = RegtestChain(chain.blocks)
    rival.rewind(RECORDED_TIP - depth)
    rival.mine_empty(depth + 1)
    async with running(ElectrumServer(chain), directory=tmp_path) as bench:
        await bench.until_complete()
    servers = ElectrumServer(chain), ElectrumServer(rival)
    async with running(*servers, directory=tmp_path) as bench:
        assert bench.chain.tip_hash[::-1].hex() == chain.blocks[-1].block_hash
        await bench.until_tip(RECORDED_TIP + 1)
        assert bench.chain.tip_hash[::-1].hex() == rival.blocks[-1].block_hash
        assert [bench.scores.of(server).lies for server in bench.servers] == [0, 0]
    async with running(servers[1], directory=tmp_path) as bench:
        assert bench.chain.tip_hash[::-1].hex() == rival.blocks[-1].block_hash


async def test_a_server_on_a_weaker_branch_is_not_followed_again_and_again() -> None:
    chain = RegtestChain.recorded()
    async with running(ElectrumServer(chain)) as bench:
        await bench.until_complete()
        (label,) = bench.sync._sessions
        tip = bench.sync._sessions[label][1].tip
        assert tip is not None
        await bench.sync._settle_fork(label, tip)
        chain.mine_empty(1)
        assert bench.sync._weaker[label] == chain.blocks[RECORDED_TIP].header[:80]
        assert bench.chain.tip_height == RECORDED_TIP


async def test_a_claim_of_height_without_the_work_does_not_win() -> None:
    chain = RegtestChain.recorded()

    def taller(method: str, params: list[Any], result: Any) -> Any:
        if method == "blockchain.headers.subscribe":
            return result | {"height": result["height"] + 50}
        return result

    async with running(ElectrumServer(chain, taller), ElectrumServer(chain)) as bench:
        await bench.until_tip(RECORDED_TIP)
        async with asyncio.timeout(30):
            await bench.sync.ready.wait()
        assert bench.chain.tip_height == RECORDED_TIP


async def until_judged(bench: Bench) -> tuple[int, int]:
    """Lies and failures of the first server, as soon as there are any; for ten seconds."""
    health = bench.scores.of(bench.servers[0])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while not health.lies and not health.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    return health.lies, health.failures


async def test_who_sends_less_than_asked_for_below_the_anchor_does_not_hold_us_up() -> None:
    chain = RegtestChain.recorded()
    anchor = Anchor(160, hash_from_hex(chain.blocks[160].block_hash))

    def one(start: int, result: Any) -> Any:
        return result | {"count": 1, "hex": chain.blocks[start].header.hex()}

    server = ElectrumServer(chain)
    async with running(server, anchor=anchor, settings=replace(SMALL, chunk=5)) as bench:
        server.lie = on_headers(lambda start, result: one(start, result) if start < 150 else result)
        assert await until_judged(bench) == (1, 0)


@pytest.mark.parametrize("ours", [RECORDED_TIP - 40, RECORDED_TIP])
async def test_who_sends_other_headers_than_it_counts_is_caught_on_the_way_up(ours: int) -> None:
    """On our chain, and on a branch off it: half a range would cost others' answers too."""
    chain = RegtestChain.recorded()
    rival = RegtestChain(chain.blocks)
    rival.rewind(RECORDED_TIP - 5)
    rival.mine_empty(30)
    half = on_headers(lambda start, result: result | {"hex": result["hex"][: 294 * 2 * 10]})
    server = ElectrumServer(RegtestChain(chain.blocks))
    server.chain.rewind(ours)
    async with running(server) as bench:
        await bench.until_complete()
        server.lie, server.chain = half, chain if ours < RECORDED_TIP else rival
        server.announce()
        assert await until_judged(bench) == (1, 0)


@pytest.mark.parametrize("lie", ["nothing, but counted", "a lower claim", "silence"])
async def test_who_claims_more_on_another_branch_must_deliver_it_in_time(lie: str) -> None:
    """Else it could keep us at an old tip, where newer values are not seen."""
    chain = RegtestChain.recorded()
    server, claim = ElectrumServer(chain), 50

    def off_our_chain(method: str, params: list[Any], result: Any) -> Any:
        nonlocal claim
        if method == "blockchain.headers.subscribe":
            return result | {"height": RECORDED_TIP + claim}
        if method != HEADERS or (params[0] <= RECORDED_TIP and lie != "silence"):
            return result
        if params[0] == RECORDED_TIP + 1:
            if lie == "a lower claim":
                claim = -RECORDED_TIP + 1
                server.announce()
            blob = chain.blocks[RECORDED_TIP - 5].header * params[1]
            return result | {"count": params[1], "hex": blob.hex()}
        if lie == "silence":
            raise Silence
        return result | {"count": params[1], "hex": ""}

    settings = replace(SMALL, turn=0.5, timeout=60.0)
    async with running(server, settings=settings) as bench:
        await bench.until_complete()
        server.lie = off_our_chain
        server.announce()
        assert await until_judged(bench) == ((0, 1) if lie == "silence" else (1, 0))
        server.lie, server.chain = honest, RegtestChain(chain.blocks)
        server.chain.mine_empty(3)
        server.announce()
        bench.scores.of(bench.servers[0]).liar_until = 0.0
        bench.sync.nudge()
        await bench.until_tip(RECORDED_TIP + 3)


async def test_padding_does_not_make_us_wait() -> None:
    chain = RegtestChain.recorded()
    fat = on_headers(lambda start, result: result | {"hex": "00" * 5_000_000})
    servers = ElectrumServer(chain, fat), ElectrumServer(chain)
    settings = replace(SMALL, cost_capacity=1000.0, cost_rate=1.0)
    async with running(*servers, settings=settings) as bench:
        await bench.until_complete(timeout=20)


def without_work(start: int, result: dict[str, Any]) -> dict[str, Any]:
    """Headers that link, with proofs that do not meet the target."""
    chain = RegtestChain.recorded()
    raws = [
        MergeMining(enough=False).mine(block.header[:80]) if start else block.header
        for block in chain.blocks[start : start + result["count"]]
    ]
    return result | {"hex": b"".join(raws).hex()}


def bad_commitment(start: int, result: dict[str, Any]) -> dict[str, Any]:
    if not start:
        return result
    chain = RegtestChain.recorded()
    raws = [
        MergeMining(commit=False).mine(block.header[:80])
        for block in chain.blocks[start : start + result["count"]]
    ]
    return result | {"hex": b"".join(raws).hex()}


@pytest.mark.parametrize(
    ("mining", "module", "function"),
    [
        (MergeMining(outputs=20_000), transaction, "_read_output"),
        (MergeMining(coinbase_branch=[bytes(32)] * 20_000), merkle, "double_sha256"),
    ],
    ids=["coinbase", "branch"],
)
async def test_a_proof_that_goes_on_and_on_is_taken_without_holding_up_others(
    monkeypatch: pytest.MonkeyPatch, mining: MergeMining, module: ModuleType, function: str
) -> None:
    """It is as valid as a short one; half a second of it would be noticed by all clients."""

    def verbose(start: int, result: dict[str, Any]) -> dict[str, Any]:
        raws = [block.header for block in chain.blocks[start : start + result["count"]]]
        if start <= 1 < start + len(raws):
            raws[1 - start] = long
        return result | {"hex": b"".join(raws).hex()}

    def counting(*args: Any) -> Any:
        counts[0] += 1
        return counted(*args)

    chain, counts, counted = RegtestChain.recorded(), [0], getattr(module, function)
    long = mining.mine(chain.blocks[1].header[:80])
    async with running(ElectrumServer(chain, on_headers(verbose))) as bench:
        monkeypatch.setattr(module, function, counting)
        watching = asyncio.create_task(most_per_turn(counts))
        await bench.until_complete()
        watching.cancel()
        assert await watching < 10_000
    assert counts[0] >= 20_000


LIES = {
    "too little work": without_work,
    "bad AuxPoW": bad_commitment,
    "cut off": lambda start, result: result | {"hex": result["hex"][:-2]},
    "no headers": lambda start, result: {"count": 0, "hex": "", "max": 2016},
    "none, but counted": lambda start, result: result | {"hex": ""},
    "too many": lambda start, result: result | {"count": 5000},
    "not hexadecimal": lambda start, result: result | {"hex": "zz"},
    "no object": lambda start, result: 7,
    "shifted": lambda start, result: (
        result
        | {
            "hex": b"".join(
                block.header for block in RegtestChain.recorded().blocks[start + 1 :]
            ).hex()
        }
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_wrong_headers_are_refused_and_come_from_another_server(lie: Any) -> None:
    chain = RegtestChain.recorded()
    liar, fine = ElectrumServer(chain, on_headers(lie)), ElectrumServer(chain)
    async with running(liar, fine) as bench:
        await bench.until_complete()
        assert bench.chain.tip_hash[::-1].hex() == chain.blocks[-1].block_hash
        assert bench.scores.of(bench.servers[0]).lies == 1
        assert bench.scores.of(bench.servers[1]).lies == 0


@pytest.mark.parametrize("trouble", [Fault(-101), Silence()])
async def test_a_server_that_will_not_serve_is_no_liar(trouble: Exception) -> None:
    def refuse(start: int, result: Any) -> Any:
        raise trouble

    chain = RegtestChain.recorded()
    async with running(
        ElectrumServer(chain, on_headers(refuse)),
        ElectrumServer(chain),
        settings=replace(SMALL, timeout=0.2),
    ) as bench:
        await bench.until_complete()
        assert bench.scores.of(bench.servers[0]).lies == 0


async def test_with_a_slow_clock_of_our_own_nobody_is_called_a_liar() -> None:
    chain = RegtestChain.recorded()
    async with running(ElectrumServer(chain)) as bench:
        bench.sync._wall_clock = lambda: chain.blocks[-1].time - 7300.0
        async with asyncio.timeout(30):
            while not bench.scores.of(bench.servers[0]).failures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert bench.scores.of(bench.servers[0]).lies == 0
        assert not bench.sync.ready.is_set()


async def test_a_server_without_our_anchor_is_refused() -> None:
    chain, other = RegtestChain.recorded(), RegtestChain.recorded()
    other.rewind(100)
    other.mine_empty(80)
    anchor = Anchor(160, hash_from_hex(chain.blocks[160].block_hash))
    async with running(ElectrumServer(other), ElectrumServer(chain), anchor=anchor) as bench:
        await bench.until_complete()
        assert bench.chain.tip_hash[::-1].hex() == chain.blocks[-1].block_hash
        assert bench.scores.of(bench.servers[0]).lies == 1


async def test_what_was_stored_is_not_fetched_again(tmp_path: Path) -> None:
    chain = RegtestChain.recorded()
    anchor = Anchor(160, hash_from_hex(chain.blocks[160].block_hash))
    async with running(ElectrumServer(chain), anchor=anchor, directory=tmp_path) as bench:
        await bench.until_complete()
    chain.mine_empty(3)
    server = ElectrumServer(chain)
    async with running(server, anchor=anchor, directory=tmp_path) as bench:
        assert bench.chain.tip_height == RECORDED_TIP
        await bench.until_complete()
        assert bench.chain.tip_height == RECORDED_TIP + 3
        asked = [params for method, params in server.requests if method == HEADERS]
        assert asked == [[RECORDED_TIP + 1, 3]]


@pytest.mark.parametrize("end", ["up", "down"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_corruption_is_noticed_and_fetched_again(
    tmp_path: Path, end: str, share: float
) -> None:
    chain = RegtestChain.recorded()
    anchor = Anchor(150, hash_from_hex(chain.blocks[150].block_hash))
    async with running(ElectrumServer(chain), anchor=anchor, directory=tmp_path) as bench:
        await bench.until_complete()
    path = tmp_path / f"headers-regtest.{end}"
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * share)] ^= 0x01
    path.write_bytes(raw)
    for _ in range(2):
        async with running(ElectrumServer(chain), anchor=anchor, directory=tmp_path) as bench:
            await bench.until_complete()
            assert bench.chain.tip_hash[::-1].hex() == chain.blocks[-1].block_hash
            assert bench.chain.base_height == RECORDED_TIP - EXPIRY


async def test_servers_are_not_asked_faster_than_their_limits_allow() -> None:
    chain = RegtestChain.recorded()
    settings = replace(SMALL, chunk=10, cost_capacity=30.0, cost_rate=20.0)
    async with running(ElectrumServer(chain), settings=settings) as bench:
        began = asyncio.get_running_loop().time()
        await bench.until_complete(timeout=20.0)
        took = asyncio.get_running_loop().time() - began
        cost = sum(1 + 10 / 50 + 2 * 10 * 294 / 5000 for _ in range(0, RECORDED_TIP, 10))
        assert took > (cost - 30) / 20 * 0.7


async def test_header_connections_are_nobodys_but_ours() -> None:
    chain = RegtestChain.recorded()
    async with running(ElectrumServer(chain)) as bench:
        await bench.until_complete()
        assert bench.pool.counts()[1:] == (0, 1)
        session = await bench.pool.session(bench.isolator.own_key("a user"), bench.servers[0])
        assert session not in [entry[1] for entry in bench.sync._sessions.values()]


async def test_a_new_epoch_is_nothing_to_the_headers() -> None:
    chain = RegtestChain.recorded()
    server = ElectrumServer(chain)
    async with running(server) as bench:
        await bench.until_complete()
        bench.isolator.new_epoch()
        chain.mine_empty(2)
        server.announce()
        await bench.until_tip(RECORDED_TIP + 2, timeout=8.0)
        assert server.connections == 1


async def test_no_claimant_holds_a_round_up_and_its_turn_is_another_servers() -> None:
    """Else one of three servers would hold our tip back by announcing what it never sends."""
    chain = RegtestChain.recorded()

    def nothing(start: int, result: Any) -> Any:
        raise Silence

    servers = [ElectrumServer(RegtestChain(chain.blocks)) for _ in range(3)]
    settings = replace(SMALL, timeout=0.5, timeout_per_header=0.0)
    async with running(*servers, settings=settings) as bench:
        await bench.until_complete()
        servers[0].lie = on_headers(nothing)
        for server in servers:
            server.chain.mine_empty(1)
        for server in servers[1:]:
            server.chain = servers[0].chain
        servers[0].announce()
        assert await until_judged(bench) == (0, 1)
        assert bench.servers[0].label not in bench.sync._sessions
        for server in servers[1:]:
            server.announce()
        await bench.until_tip(RECORDED_TIP + 1, timeout=5.0)


async def test_who_keeps_us_waiting_again_waits_longer_for_its_next_turn() -> None:
    chain = RegtestChain.recorded()
    server = ElectrumServer(chain)
    settings = replace(SMALL, timeout=0.1, timeout_per_header=0.0)
    async with running(server, settings=settings) as bench:
        await bench.until_complete()
        (one,) = bench.servers
        bench.sync._blame(one.label, DialError())
        bench.scores.of(one).retry_at = 0.0
        bench.sync.nudge()
        await until(lambda: one.label in bench.sync._sessions)
        assert bench.scores.of(one).failures == 1
        chain.mine_empty(1)
        server.announce()
        await bench.until_tip(RECORDED_TIP + 1)
        assert bench.scores.of(one).failures == 0


async def test_a_header_connection_whose_life_is_over_is_replaced() -> None:
    server = ElectrumServer(RegtestChain.recorded())
    async with running(server) as bench:
        await bench.until_complete()
        (session,) = bench.pool._upkeep
        session.end()
        await until(lambda: bench.pool.counts()[2] == 1 and session not in bench.pool._upkeep)
        assert server.connections == 2
