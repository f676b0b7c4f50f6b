from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.chain import transaction
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.name_script import NAME_TX_VERSION, script_hash
from isoproxy.namecoin.chain.params import REGTEST, Anchor
from isoproxy.namecoin.chain.spv import NotInBlock, ProofVerdict
from isoproxy.namecoin.electrum.lookup import MAX_LAG, NameQuestion, ServerLags, StillSyncing
from isoproxy.namecoin.electrum.session import ElectrumSession
from tests.kit.electrum_server import ElectrumServer, Lie, honest
from tests.kit.namecoin.at_once import append, parse_header
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.mining import NULL_OUTPOINT, serialise
from tests.unit.namecoin.chain.turns import most_per_turn

pytestmark = pytest.mark.virtual_clock
PROOF = "blockchain.name.get_value_proof"
HISTORY = "blockchain.scripthash.get_history"


def headers_of(chain: RegtestChain, *, anchor: int = 0) -> HeaderChain:
    """Our own header chain over the blocks of `chain`."""
    mined = [parse_header(raw) for raw in chain.headers()]
    ours = HeaderChain(REGTEST, Anchor(anchor, mined[anchor].header.block_hash))
    ours.extend_down([item.header for item in mined[max(0, anchor - 10) : anchor + 1]])
    branch = ours.branch(anchor)
    for item in mined[anchor + 1 :]:
        append(branch, item)
    if branch.outweighs:
        ours.adopt(branch)
    return ours


@contextlib.asynccontextmanager
async def session(
    chain: RegtestChain,
    lie: Lie = honest,
    protocol: str = "1.4.3",
    requests: list[tuple[str, list[Any]]] | None = None,
) -> AsyncIterator[ElectrumSession]:
    async with ElectrumServer(chain, lie, protocol=protocol) as server:
        if requests is not None:
            server.requests = requests
        async with connected(server) as opened:
            yield opened


@contextlib.asynccontextmanager
async def connected(server: ElectrumServer) -> AsyncIterator[ElectrumSession]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    opened = await ElectrumSession.start(reader, writer, REGTEST)
    try:
        yield opened
    finally:
        opened.close()
        await opened.wait_closed()


def updated(values: int, spacing: int = 3) -> RegtestChain:
    """A chain in which `d/often` got `values` values, `spacing` blocks apart."""
    chain = RegtestChain.recorded()
    for number in range(values):
        chain.update(b"d/often", b"%d" % number)
        chain.mine_empty(spacing)
    return chain


def question(chain: HeaderChain, name: bytes = b"d/often", confirmations: int = 6) -> NameQuestion:
    return NameQuestion(name, chain, confirmations)


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
async def test_the_survivor_is_found_below_younger_renewals(protocol: str) -> None:
    chain = updated(4)
    async with session(chain, protocol=protocol) as server:
        verdict = await question(headers_of(chain)).ask(server)
        assert verdict.operation is not None
        assert verdict.operation.update.value == b"2"


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
async def test_a_question_carries_nothing_of_our_own_headers(protocol: str) -> None:
    """One server could hold our headers back, and would read that in questions of all keys."""
    chain = updated(9)
    asked: list[list[tuple[str, list[Any]]]] = []
    for behind in (0, 2, 5, 20):
        asked.append([])
        ours = headers_of(RegtestChain(chain.blocks[: chain.tip + 1 - behind]))
        async with session(chain, protocol=protocol, requests=asked[-1]) as server:
            with contextlib.suppress(StillSyncing):
                await question(ours).ask(server)
    assert len(asked[0]) > 3
    assert asked.count(asked[0]) == len(asked)


async def test_the_height_asked_for_is_what_this_server_said_on_this_connection() -> None:
    chain = updated(3)
    for less in (0, 4, 30):

        def claims(method: str, params: list[Any], result: Any, less: int = less) -> Any:
            if method == "blockchain.headers.subscribe":
                return result | {"height": result["height"] - less}
            return result

        requests: list[tuple[str, list[Any]]] = []
        async with session(chain, claims, requests=requests) as server:
            with contextlib.suppress(ServerLags):
                await question(headers_of(chain), confirmations=6).ask(server)
        ((_, params),) = [one for one in requests if one[0] == PROOF]
        assert params[1] == chain.tip - less - 6 + 1 - MAX_LAG


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
async def test_a_tip_some_blocks_below_the_servers_still_finds_the_survivor(protocol: str) -> None:
    chain = updated(8)
    ours = headers_of(RegtestChain(chain.blocks[: chain.tip + 1 - MAX_LAG]))
    async with session(chain, protocol=protocol) as server:
        verdict = await question(ours).ask(server)
        assert verdict.operation is not None
        assert ours.tip_height - verdict.operation.height + 1 >= 6


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
async def test_only_young_operations_leave_the_name_unconfirmed(protocol: str) -> None:
    chain = updated(1)
    async with session(chain, protocol=protocol) as server:
        verdict = await question(headers_of(chain)).ask(server)
        assert verdict == ProofVerdict(None, ErrorKind.NAME_UNCONFIRMED)


async def test_a_young_operation_on_a_branch_we_do_not_follow_is_no_lie() -> None:
    chain = updated(3)
    rival = RegtestChain(chain.blocks)
    rival.rewind(chain.tip - 5)
    rival.mine_empty(5)
    async with session(chain) as server:
        verdict = await question(headers_of(rival)).ask(server)
        assert verdict.operation is not None
        assert verdict.operation.update.value == b"1"


async def test_an_operation_above_our_tip_is_not_looked_at() -> None:
    chain = updated(3)
    ours = headers_of(RegtestChain(chain.blocks[: chain.tip - 3]))
    async with session(chain) as server:
        verdict = await question(ours, confirmations=1).ask(server)
        assert verdict.operation is not None
        assert verdict.operation.update.value == b"1"


async def test_a_server_far_behind_us_does_not_count() -> None:
    chain = updated(3)
    behind = RegtestChain(chain.blocks[: chain.tip - 7])
    async with session(behind) as server:
        with pytest.raises(ServerLags):
            await question(headers_of(chain)).ask(server)


async def test_what_our_headers_do_not_reach_yet_waits() -> None:
    chain = updated(1, spacing=12)
    async with session(chain) as server:
        with pytest.raises(StillSyncing):
            await question(headers_of(chain, anchor=chain.tip), b"d/plain4").ask(server)


async def test_an_expired_operation_needs_no_header() -> None:
    chain = updated(1, spacing=32)
    async with session(chain) as server:
        verdict = await question(headers_of(chain, anchor=chain.tip), b"d/plain4").ask(server)
        assert verdict == ProofVerdict(None, ErrorKind.NAME_EXPIRED)


async def test_a_transaction_that_goes_on_and_on_is_read_without_holding_up_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lie, or what the owner of the name made: who asks about others does not notice."""
    chain, counts, read_output = updated(1, spacing=6), [0], transaction._read_output
    long = serialise(NAME_TX_VERSION, [(NULL_OUTPOINT, b"")], [(0, b"")] * 50_000)

    def lie(method: str, params: list[Any], result: Any) -> Any:
        if method == PROOF:
            result[params[0]][0]["tx"] = long.hex()
        return result

    def counting(data: bytes, offset: int) -> Any:
        counts[0] += 1
        return read_output(data, offset)

    async with session(chain, lie) as opened:
        monkeypatch.setattr(transaction, "_read_output", counting)
        watching = asyncio.create_task(most_per_turn(counts))
        with pytest.raises(NotInBlock):
            await question(headers_of(chain)).ask(opened)
        watching.cancel()
        assert await watching < 10_000
    assert counts[0] >= 50_000


def reordered(method: str, params: list[Any], result: Any) -> Any:
    if method == PROOF:
        result[params[0]].reverse()
    if method.endswith("get_history"):
        result.reverse()
    return result


def doubled(method: str, params: list[Any], result: Any) -> Any:
    if method == PROOF:
        result[params[0]] *= 2
    if method.endswith("get_history"):
        result *= 2
    return result


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
@pytest.mark.parametrize("lie", [reordered, doubled])
async def test_the_order_of_a_history_changes_nothing(lie: Lie, protocol: str) -> None:
    chain = updated(4)
    async with session(chain, lie, protocol) as server:
        verdict = await question(headers_of(chain)).ask(server)
        assert verdict.operation is not None
        assert verdict.operation.update.value == b"2"


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
@pytest.mark.parametrize("empty", [2, 20])
async def test_what_a_lost_block_left_in_a_history_is_left_out(protocol: str, empty: int) -> None:
    """The index of ElectrumX 2.0.0 after a reorganisation, as seen."""
    chain = updated(1, spacing=6)
    fork = chain.tip
    async with ElectrumServer(chain, protocol=protocol) as server:
        chain.update(b"d/often", b"lost")
        async with connected(server) as opened:
            await opened.call(HISTORY, script_hash(b"d/often"))
        chain.rewind(fork)
        chain.mine_empty(empty)
        async with connected(server) as opened:
            verdict = await question(headers_of(chain)).ask(opened)
        assert verdict.operation is not None
        assert verdict.operation.update.value == b"0"


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
@pytest.mark.parametrize("depth", [2, 12])
async def test_a_transaction_that_got_the_number_of_a_lost_one_is_no_lie(
    protocol: str, depth: int
) -> None:
    chain = updated(1, spacing=20)
    height = chain.tip - depth
    (coinbase,) = chain.blocks[height].transactions
    unrelated = {"tx_hash": coinbase, "height": height}
    proof = {"height": height, "tx": chain.transactions[coinbase].hex()}

    def leftover(method: str, params: list[Any], result: Any) -> Any:
        if method.endswith("get_history"):
            return [*result, unrelated]
        if method == PROOF:
            older = [] if depth == 12 else result[params[0]]
            return {params[0]: [proof | {"tx_merkle": {"merkle": [], "pos": 0}}, *older]}
        return result

    async with session(chain, leftover, protocol) as server:
        verdict = await question(headers_of(chain)).ask(server)
        assert verdict.operation is not None
        assert verdict.operation.update.value == b"0"


async def test_an_unrelated_transaction_that_is_in_no_block_is_a_lie() -> None:
    chain = updated(2)
    foreign = serialise(NAME_TX_VERSION, [(NULL_OUTPOINT, b"")], [(0, b"")])

    def lie(method: str, params: list[Any], result: Any) -> Any:
        if method.endswith("transaction.get"):
            return foreign.hex()
        return result

    async with session(chain, lie, "1.4.2") as server:
        with pytest.raises(NotInBlock):
            await question(headers_of(chain), confirmations=1).ask(server)
