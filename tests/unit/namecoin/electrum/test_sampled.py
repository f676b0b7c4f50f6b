"""The sampled way to a far tip: what it fetches, what it believes, and forgeries of all kinds."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoproxy.namecoin.chain.params import Anchor, hash_from_hex
from isoproxy.namecoin.chain.sampling import FULL_TAIL
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.sampled import Mismatch
from tests.kit.electrum_server import ElectrumServer, Fault, Lie, Silence
from tests.kit.namecoin.chain import Block
from tests.kit.namecoin.forging import (
    RULES,
    Forge,
    all_done,
    withholding,
    without_the_oldest_half,
)
from tests.kit.waiting import until
from tests.unit.namecoin.electrum.test_header_sync import HEADERS, Bench, running

TIP = 1400
SETTINGS = SyncSettings(
    chunk=100, bare_chunk=250, timeout=5.0, idle=0.2, beside=1.0, sample_from=400
)
QUIET = SyncSettings(
    chunk=100, bare_chunk=250, timeout=5.0, idle=3600.0, beside=1.0, sample_from=400
)
"""Nothing is proven in the background."""
HEADER = "blockchain.block.header"


@functools.cache
def truth() -> tuple[Block, ...]:
    return tuple(Forge(1).grow(TIP).blocks)


def honest(lie: Lie = lambda method, params, result: result, **how: Any) -> ElectrumServer:
    return ElectrumServer(Forge(1, truth()).chain(), lie, **how)


def forged(forge: Forge, lie: Lie = lambda method, params, result: result) -> ElectrumServer:
    return ElectrumServer(forge.chain(), lie)


def is_true(bench: Bench) -> bool:
    """Whether the chain, if there is any above the anchor, is the true one."""
    at = min(bench.chain.tip_height, TIP)
    return bench.chain.block_hash(at)[::-1].hex() == truth()[at].block_hash


def whole(server: ElectrumServer) -> list[int]:
    """The heights that it was asked for with their proofs."""
    heights = [params[0] for method, params in server.requests if method == HEADER]
    for method, params in server.requests:
        if method == HEADERS and len(params) == 2:
            heights += range(params[0], params[0] + params[1])
    return heights


# -- the honest way ----------------------------------------------------------------------


async def test_bare_headers_the_newest_and_the_draw_are_fetched_and_nothing_else() -> None:
    servers = honest(), honest(), honest()
    async with running(*servers, network=RULES, settings=QUIET) as bench:
        await bench.until_tip(TIP)
        await until(bench.sync.ready.is_set)
        assert is_true(bench)
        heights = [height for server in servers for height in whole(server)]
        assert set(range(TIP + 1 - FULL_TAIL, TIP + 1)) <= set(heights)
        drawn = {height for height in heights if 0 < height <= TIP - FULL_TAIL}
        assert 30 < len(drawn) < 90
        assert bench.sync.progress().unproven == TIP - FULL_TAIL - len(drawn)
        assert not any(bench.chain.is_proven(at) != (at in drawn) for at in range(1, 1200))
    bare = [params for s in servers for method, params in s.requests
            if method == HEADERS and len(params) == 3]  # fmt: skip
    covered = [at for params in bare for at in range(params[0], params[0] + params[1])]
    assert sorted(covered) == list(range(TIP + 1))


async def test_the_rest_is_proven_in_the_background_and_kept(tmp_path: Path) -> None:
    server = honest()
    async with running(server, network=RULES, settings=SETTINGS, directory=tmp_path) as bench:
        await until(bench.sync.ready.is_set)
        assert bench.chain.unproven
        await until(lambda: not bench.chain.unproven)
    server = honest()
    async with running(server, network=RULES, settings=SETTINGS, directory=tmp_path) as bench:
        assert (bench.chain.tip_height, bench.chain.unproven) == (TIP, 0)
        await until(bench.sync.ready.is_set)
    assert not whole(server)


async def test_a_sampled_chain_is_kept_as_what_it_is(tmp_path: Path) -> None:
    async with running(honest(), network=RULES, settings=QUIET, directory=tmp_path) as bench:
        await until(bench.sync.ready.is_set)
        unproven = bench.chain.unproven_heights()
    async with running(honest(), network=RULES, settings=QUIET, directory=tmp_path) as bench:
        assert bench.chain.unproven_heights() == unproven
        assert bench.chain.tip_height == TIP


async def test_a_tip_too_far_away_to_be_kept_unproven_is_taken_whole() -> None:
    near = replace(QUIET, sample_until=TIP // 2)
    async with running(honest(), network=RULES, settings=near) as bench:
        await until(bench.sync.ready.is_set)
        assert not bench.chain.unproven


async def test_where_all_is_to_be_proven_first_nothing_is_ready_before(tmp_path: Path) -> None:
    async with running(honest(), network=RULES, settings=QUIET, directory=tmp_path) as bench:
        await until(bench.sync.ready.is_set)
    full = SyncSettings(chunk=100, bare_chunk=250, idle=3600.0, sampled=False, sample_from=400)
    held = [True]

    def holding(method: str, params: list[Any], result: Any) -> Any:
        if method == HEADERS and len(params) == 2 and held[0]:
            raise Silence
        return result

    server = honest(holding)
    async with running(server, network=RULES, settings=full, directory=tmp_path) as bench:
        await asyncio.sleep(0.3)
        assert not bench.sync.ready.is_set()
        held[0] = False
        server.cut_all()
        await until(bench.sync.ready.is_set)
        assert not bench.chain.unproven
    async with running(honest(), network=RULES, settings=full) as bench:
        await until(bench.sync.ready.is_set)
        assert not bench.chain.unproven


async def test_of_servers_that_cannot_cut_all_is_taken_whole_and_kept_as_it_comes() -> None:
    servers = honest(cuts_right=False), honest(cuts_right=False)
    async with running(*servers, network=RULES, settings=QUIET) as bench:
        await until(bench.sync.ready.is_set)
        assert (bench.chain.tip_height, bench.chain.unproven) == (TIP, 0)
        assert [bench.scores.of(server).lies for server in bench.servers] == [0, 0]
    assert not [1 for server in servers for method, _ in server.requests if method == HEADER]


async def test_beside_one_that_can_cut_those_that_cannot_are_asked_for_proofs_alone() -> None:
    servers = honest(cuts_right=False), honest()
    async with running(*servers, network=RULES, settings=QUIET) as bench:
        await until(bench.sync.ready.is_set)
        assert bench.chain.unproven > 1000


async def test_the_next_blocks_are_checked_in_full_and_replace_what_is_not() -> None:
    chain = honest()
    async with running(chain, network=RULES, settings=QUIET) as bench:
        await until(bench.sync.ready.is_set)
        rival = Forge(2, truth()[: TIP - 200 + 1]).grow(203)
        chain.chain = rival.chain()
        chain.announce()
        await bench.until_tip(TIP + 3)
        assert min(bench.chain.unproven_heights()) >= 1
        assert max(bench.chain.unproven_heights()) <= TIP - 200


async def test_the_draw_is_the_same_for_a_tip_whoever_is_asked() -> None:
    """A server that withholds what was drawn does not get another draw for its next try."""
    asked: list[set[int]] = []
    for _ in range(2):
        server = honest(withholding(lambda height: height < TIP - FULL_TAIL))
        async with running(server, network=RULES, settings=QUIET) as bench:
            await until(lambda s=server: any(m == HEADER for m, _ in s.requests))  # type: ignore[misc]
            await until(lambda b=bench: b.scores.of(b.servers[0]).failures)  # type: ignore[misc]
            first = set(whole(server))
            server.requests.clear()
            bench.scores.reset_backoff()
            await until(lambda b=bench: b.scores.of(b.servers[0]).failures)  # type: ignore[misc]
            again = {params[0] for method, params in server.requests if method == HEADER}
            assert again <= first
            assert not [1 for m, params in server.requests if m == HEADERS and len(params) == 3]
            asked.append(first)
    assert asked[0] != asked[1]


# -- forgeries ---------------------------------------------------------------------------


def forgeries() -> dict[str, tuple[Forge, Lie]]:
    """Chains that claim more than the true one, and what their server does beside."""

    def nothing(method: str, params: list[Any], result: Any) -> Any:
        return result

    def refusing(method: str, params: list[Any], result: Any) -> Any:
        if method == HEADER:
            raise Fault(1)
        return result

    def tail(depth: int) -> Forge:
        fork, tip = TIP - depth, TIP + 20
        beginning = truth()[: fork + 1]
        return Forge(3, beginning).grow(tip - fork, is_done=without_the_oldest_half(fork, tip))

    def even(depth: int) -> Forge:
        fork, tip = TIP - depth, TIP + 20
        return Forge(4, truth()[: fork + 1]).grow(
            tip - fork, is_done=lambda height: height % 2 == 0 or height > tip - FULL_TAIL
        )

    return {
        "300 deep": (tail(300), nothing),
        "1000 deep": (tail(1000), nothing),
        "all of it": (tail(TIP), nothing),
        "every second block": (even(1000), nothing),
        "150 deep, proofs withheld": (tail(150), refusing),
        "1000 deep, proofs withheld": (tail(1000), refusing),
        "1000 deep, forged ones withheld": (
            tail(1000), withholding(lambda height: not without_the_oldest_half(400, 1420)(height)),
        ),
        "nothing was worked for": (Forge(5).grow(TIP + 20, is_done=lambda height: False), nothing),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(forgeries()))
async def test_a_forged_chain_is_not_adopted_and_the_true_one_is(name: str) -> None:
    """Of three servers two are the forger's: the truth comes from the third alone."""
    forge, lie = forgeries()[name]
    servers = forged(forge, lie), forged(forge, lie), honest()
    async with running(*servers, network=RULES, settings=QUIET) as bench:
        await until(lambda: bench.chain.tip_height >= TIP)
        assert is_true(bench)
        await asyncio.sleep(0.1)
        assert is_true(bench)


@pytest.mark.parametrize("name", ["300 deep", "1000 deep, forged ones withheld"])
async def test_where_the_truth_is_withheld_a_forged_chain_is_not_adopted_either(name: str) -> None:
    forge, lie = forgeries()[name]
    async with running(forged(forge, lie), network=RULES, settings=QUIET) as bench:
        health = bench.scores.of(bench.servers[0])
        await until(lambda: health.lies or health.failures)
        assert bench.chain.tip_height == 0
        assert not bench.sync.ready.is_set()


async def test_who_never_comes_to_an_end_delays_what_others_have_by_one_turn() -> None:
    """Its answers may be in time, each of them: bare headers cost nobody any work."""
    forge = Forge(5).grow(TIP + 20, is_done=lambda height: False)
    settings = replace(QUIET, turn=1.5)
    clock = asyncio.get_running_loop().time
    async with running(forged(forge), honest(), network=RULES, settings=settings) as bench:
        take, bad, began = bench.sync._sampled_way.take, bench.servers[0].label, clock()

        async def endless(claimant: str, claim: TipClaim) -> Mismatch | None:
            if claimant == bad:
                await asyncio.Event().wait()
            return await take(claimant, claim)

        bench.sync._sampled_way.take = endless  # type: ignore[method-assign]
        async with asyncio.timeout(30):
            await bench.sync.ready.wait()
        assert settings.turn <= clock() - began
        assert is_true(bench)
        assert bench.scores.of(bench.servers[0]).failures


@functools.cache
def two_windows() -> tuple[Block, ...]:
    """A true chain through a change of difficulty."""
    return tuple(Forge(1).grow(2400).blocks)


@pytest.mark.parametrize("spacing", [150, 2400])
async def test_difficulty_that_was_claimed_and_not_done_or_made_low_by_dates(spacing: int) -> None:
    """Blocks dated close make the next ones count four times, dated far apart a quarter."""
    true = two_windows()
    done = without_the_oldest_half(1000, 2420) if spacing < 600 else all_done
    count = 1420 if spacing < 600 else 1200
    forge = Forge(6, true[:1001]).grow(count, spacing, is_done=done)
    servers = forged(forge), ElectrumServer(Forge(1, true).chain())
    async with running(*servers, network=RULES, settings=QUIET) as bench:
        clock = max(forge.blocks[-1].time, true[-1].time) + 600.0
        bench.sync._wall_clock = lambda: clock
        await bench.until_tip(2400)
        assert bench.chain.block_hash(2400)[::-1].hex() == true[-1].block_hash


async def test_a_chain_off_our_anchor_is_nobodys() -> None:
    """The anchor is in the truth; the forger's chain has another block there."""
    anchor = Anchor(100, hash_from_hex(truth()[100].block_hash))
    forge = Forge(7).grow(TIP + 5)
    servers = forged(forge), honest()
    async with running(*servers, network=RULES, settings=QUIET, anchor=anchor) as bench:
        await bench.until_tip(TIP)
        assert is_true(bench)


async def test_servers_on_other_branches_help_as_far_as_they_can() -> None:
    """Honest ones, whose newest blocks differ: nobody is called a liar."""

    def tips(blocks: Sequence[Block]) -> ElectrumServer:
        return ElectrumServer(Forge(1, blocks).chain())

    rival = Forge(8, truth()[:TIP]).grow(1)
    servers = tips(rival.blocks), tips([*truth(), *Forge(1, truth()).grow(1).blocks[-1:]])
    async with running(*servers, network=RULES, settings=QUIET) as bench:
        await bench.until_tip(TIP + 1)
        assert is_true(bench)
        assert [bench.scores.of(server).lies for server in bench.servers] == [0, 0]
