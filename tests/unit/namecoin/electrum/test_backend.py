"""The whole light client against servers of ours: honest, lying, dead, slow, lagging."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from isoproxy.errors import ConfigError, ErrorKind
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.chain import merkle
from isoproxy.namecoin.chain.params import REGTEST, Anchor, Checkpoint, hash_from_hex
from isoproxy.namecoin.chain.sampling import SECURITY_BITS
from isoproxy.namecoin.chain.transaction import double_sha256
from isoproxy.namecoin.electrum import backend
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings, _Panel
from isoproxy.namecoin.electrum.header_sync import HeaderSync
from isoproxy.namecoin.electrum.lookup import NameQuestion
from isoproxy.namecoin.electrum.pool import PoolSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrum_server import ElectrumServer, Fault, Lie, Silence, honest
from tests.kit.namecoin.chain import RECORDED_TIP, RegtestChain, merkle_tree, recorded_answers
from tests.kit.namecoin.mining import serialise
from tests.kit.waiting import until

pytestmark = pytest.mark.virtual_clock
SETTINGS = ElectrumSettings(
    network=REGTEST,
    confirmations=6,
    max_tip_age=None,
    deadline=40.0,
    ready_wait=20.0,
    ready_spread=0.0,
    answer_timeout=5.0,
    hedge_after=0.4,
    pool=PoolSettings(reserve=0, wait=10.0, open_timeout=10.0, opens_per_minute=6000),
)
ANSWERS = recorded_answers()
CHAIN = RegtestChain.recorded()
NAME, VALUE = b"d/plain4", b'{"ip":"192.0.2.10"}'


class Bench:
    """A running client, its servers as the pool knows them, and an isolator."""

    def __init__(
        self,
        servers: list[ElectrumServer],
        settings: ElectrumSettings,
        operators: str = "0123456789",
    ) -> None:
        self.isolator = Isolator()
        self.dialer = DirectDialer()
        self.servers: list[NameServer] = [
            parse_server(f"127.0.0.1:{server.port}:t", f"operator {operator}")
            for server, operator in zip(servers, operators, strict=False)
        ]
        self.settings = replace(settings, servers=self.servers)
        self.age = 600.0
        self.client = ElectrumBackend(
            self.dialer,
            self.isolator,
            self.settings,
            wall_clock=lambda: servers[0].chain.blocks[-1].time + self.age,
        )
        self.key = self.isolator.own_key("a user")

    async def lookup(self, name: bytes = NAME) -> Found | Absent:
        return await self.client.lookup(name, self.key)

    def lies(self, number: int) -> int:
        """How often the key of now has caught a server."""
        return self.client.key_scores.of(self.key).of(self.servers[number]).lies


@contextlib.asynccontextmanager
async def running(
    *servers: ElectrumServer,
    settings: ElectrumSettings = SETTINGS,
    operators: str = "0123456789",
) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server)
        bench = Bench(list(servers), settings, operators)
        bench.client.start()
        try:
            yield bench
        finally:
            await bench.client.close()


async def synced(bench: Bench, tip: int, timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while bench.client.chain.tip_height != tip:  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0.01)


def lying(method: str, change: Callable[[Any], Any]) -> Lie:
    """Change the results of `method`."""

    def lie(asked: str, params: list[Any], result: Any) -> Any:
        return change(result) if asked == method else result

    return lie


def in_proof(change: Callable[[dict[str, Any]], Any]) -> Lie:
    """Change the first entry of a value proof, a dict, in place."""

    def lie(method: str, params: list[Any], result: Any) -> Any:
        if method.endswith("get_value_proof"):
            for entry in result[params[0]][:1]:
                change(entry)
        return result

    return lie


# -- what is told when names cannot be looked up --------------------------------------


async def failure(bench: Bench) -> TemporaryFailure:
    with pytest.raises(TemporaryFailure) as caught:
        await bench.lookup()
    return caught.value


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (ErrorKind.TOR_UNREACHABLE, ErrorKind.TOR_UNREACHABLE, "Tor does not answer"),
        (ErrorKind.CONNECTION_REFUSED, ErrorKind.NAME_BACKEND_DOWN, "None of the 2 name servers"),
    ],
)
async def test_where_waiting_cannot_help_a_look_up_fails_at_once(
    cause: ErrorKind, kind: ErrorKind, words: str
) -> None:
    bench = Bench([ElectrumServer(CHAIN, port=port) for port in (1, 2)], SETTINGS)
    bench.dialer.failure = cause
    bench.client.start()
    try:
        async with asyncio.timeout(5.0):  # of 20 s that it may wait
            failed = await failure(bench)
        assert failed.kind is kind
        assert words in str(failed)
        assert bench.client.health().up == 0
    finally:
        await bench.client.close()


async def test_headers_on_their_way_are_told_with_how_far_they_are() -> None:
    def silent(method: str, params: list[Any], result: Any) -> Any:
        if method.endswith("block.headers"):
            raise Silence
        return result

    settings = replace(SETTINGS, ready_wait=0.5)
    servers = (ElectrumServer(CHAIN, silent), ElectrumServer(CHAIN, silent))
    async with running(*servers, settings=settings) as bench:
        failed = await failure(bench)
        assert failed.kind is ErrorKind.NAME_SYNCHRONISING
        assert f"of {RECORDED_TIP}" in str(failed)


@pytest.mark.parametrize(("days", "word"), [(-2, "slow"), (2, "fast")])
async def test_a_clock_that_is_wrong_is_told_as_that(days: int, word: str) -> None:
    settings = replace(SETTINGS, ready_wait=2.0, max_tip_age=86_400.0)
    chain = RegtestChain.recorded()
    async with running(ElectrumServer(chain), ElectrumServer(chain), settings=settings) as bench:
        bench.age = days * 86_400.0
        failed = await failure(bench)
        assert failed.kind is ErrorKind.NAME_WRONG_CLOCK
        assert word in str(failed)


async def test_a_server_that_never_answered_is_not_up() -> None:
    def silent(method: str, params: list[Any], result: Any) -> Any:
        raise Silence

    pool = replace(SETTINGS.pool, open_timeout=0.3)
    servers = (ElectrumServer(CHAIN), ElectrumServer(CHAIN), ElectrumServer(CHAIN, silent))
    async with running(*servers, settings=replace(SETTINGS, pool=pool)) as bench:
        for number in range(3):
            await make_first(bench, number)
            assert isinstance(await bench.lookup(), Found)
        assert (bench.client.health().known, bench.client.health().up) == (3, 2)


# -- honest servers -----------------------------------------------------------------


async def test_all_that_follow_blocks_are_told_until_they_leave() -> None:
    chain = RegtestChain.recorded()
    server = ElectrumServer(chain)
    async with running(server, ElectrumServer(chain)) as bench:
        await synced(bench, chain.tip)
        told: list[str] = []
        leave = bench.client.on_block(lambda: told.append("first"))
        bench.client.on_block(lambda: told.append("second"))
        for expected in (["first", "second"], ["first", "second", "second"]):
            chain.mine_empty(1)
            server.announce()
            await synced(bench, chain.tip)
            assert told == expected
            leave()


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2", "1.4"])
async def test_every_recorded_name_gives_what_namecoin_core_gave(protocol: str) -> None:
    servers = [ElectrumServer(CHAIN, protocol=protocol) for _ in range(3)]
    async with running(*servers) as bench:
        for name, said in ANSWERS.items():
            answer = await bench.lookup(name.encode())
            if "txid" not in said:
                assert isinstance(answer, Absent)
                assert answer.reason is ErrorKind.NAME_ABSENT
            elif said["expired"]:
                assert isinstance(answer, Absent)
                assert answer.reason is ErrorKind.NAME_EXPIRED
            else:
                assert isinstance(answer, Found)
                assert answer.value == str(said["value"]).encode()
                assert (answer.height, answer.txid) == (said["height"], said["txid"])
                assert answer.expires_in == said["expires_in"]
                assert answer.evidence is Evidence.SPV_CONFIRMED
            assert len(answer.servers) == 2


async def test_a_look_up_is_one_round_trip_where_the_server_allows_it() -> None:
    server, other = ElectrumServer(CHAIN), ElectrumServer(CHAIN)
    async with running(server, other) as bench:
        await bench.lookup()
        server.requests.clear()
        await bench.lookup(b"d/updated-thrice")
        asked = [method for method, _ in server.requests]
        assert asked == ["blockchain.name.get_value_proof"]


async def test_an_older_server_is_asked_in_two_round_trips_for_what_decides() -> None:
    chain = RegtestChain.recorded()
    for number in range(5):
        chain.update(b"d/often", b"%d" % number)
    chain.mine_empty(3)
    server, other = (ElectrumServer(chain, protocol="1.4.2") for _ in range(2))
    async with running(server, other) as bench:
        server.requests.clear()
        answer = await bench.lookup(b"d/often")
        assert isinstance(answer, Found)
        assert answer.value == b"2"
        asked = sorted(method for method, _ in server.requests if "scripthash" in method)
        assert len(asked) == 1
        assert len([1 for method, _ in server.requests if method.endswith("transaction.get")]) == 5


async def test_keys_never_share_a_connection() -> None:
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        keys = [bench.isolator.own_key(str(n)) for n in range(5)]
        await asyncio.gather(*(bench.client.lookup(NAME, key) for key in keys for _ in range(10)))
        assert bench.client.pool.counts()[1] == 10
        keys.append(bench.isolator.own_key("one that finds connections of others"))
        await bench.client.lookup(NAME, keys[-1])
        assert bench.client.pool.counts()[1] == 12
        pairs = [(item.username, item.password) for item in bench.dialer.credentials]
        assert len(set(pairs)) == len(pairs)


async def test_a_new_epoch_needs_new_keys_and_new_connections() -> None:
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        await bench.lookup()
        before = len(bench.dialer.credentials)
        bench.isolator.new_epoch()
        with pytest.raises(TemporaryFailure) as failed:
            await bench.lookup()
        assert failed.value.kind is ErrorKind.STALE_KEY
        bench.key = bench.isolator.own_key("the same user")
        assert isinstance(await bench.lookup(), Found)
        pairs = [(item.username, item.password) for item in bench.dialer.credentials]
        assert not set(pairs[:before]) & set(pairs[before:])


async def test_a_name_that_cannot_be_on_the_chain_is_absent() -> None:
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        assert await bench.lookup(b"d/" + b"a" * 254) == Absent(ErrorKind.NAME_ABSENT)


# -- the chain moves ------------------------------------------------------------------


async def test_renewal_confirmation_and_expiry() -> None:
    chain = RegtestChain.recorded()
    servers = [ElectrumServer(chain) for _ in range(2)]
    async with running(*servers) as bench:

        async def mined(count: int) -> None:
            chain.mine_empty(count)
            for server in servers:
                server.announce()
            await synced(bench, chain.tip)

        chain.update(b"d/new", b"first")
        await mined(0)
        assert await reason(bench, b"d/new") is ErrorKind.NAME_UNCONFIRMED
        await mined(4)
        assert await reason(bench, b"d/new") is ErrorKind.NAME_UNCONFIRMED
        await mined(1)
        assert await value(bench, b"d/new") == b"first"
        renewed = chain.update(b"d/new", b"second")
        await mined(4)
        assert await value(bench, b"d/new") == b"first"
        await mined(1)
        assert await value(bench, b"d/new") == b"second"
        await mined(29 - (chain.tip - renewed.height))
        found = await bench.lookup(b"d/new")
        assert isinstance(found, Found)
        assert found.expires_in == 1
        await mined(1)
        assert await reason(bench, b"d/new") is ErrorKind.NAME_EXPIRED


async def value(bench: Bench, name: bytes) -> bytes:
    answer = await bench.lookup(name)
    assert isinstance(answer, Found)
    return answer.value


async def reason(bench: Bench, name: bytes) -> ErrorKind:
    answer = await bench.lookup(name)
    assert isinstance(answer, Absent)
    return answer.reason


@pytest.mark.parametrize("protocol", ["1.4.3", "1.4.2"])
async def test_what_was_replaced_far_above_our_tip_is_not_the_answer(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is absence.  Our headers were held back, or this computer slept."""
    chain = RegtestChain.recorded()
    servers = [ElectrumServer(chain, protocol=protocol) for _ in range(2)]
    async with running(*servers) as bench:
        assert await value(bench, NAME) == VALUE
        monkeypatch.setattr(bench.client.sync, "_forward", asyncio.Event().wait)
        chain.update_all({NAME: b"newer", b"d/new": b"first"})
        chain.mine_empty(4)
        for server in servers:
            server.announce()
        assert await value(bench, NAME) == VALUE  # the newer one has five of six confirmations
        assert await reason(bench, b"d/new") is ErrorKind.NAME_ABSENT
        chain.mine_empty(2)
        for server in servers:
            server.announce()
        for name in (NAME, b"d/new"):
            with pytest.raises(TemporaryFailure) as caught:
                await bench.lookup(name)
            assert caught.value.kind is ErrorKind.NAME_SYNCHRONISING
        assert await value(bench, b"d/transferred") == b'{"ip":"192.0.2.90"}'


async def test_a_reorganisation_takes_a_value_back() -> None:
    chain = RegtestChain.recorded()
    fork = chain.tip
    chain.update(b"d/reorg", b"on the branch that loses")
    chain.mine_empty(6)
    servers = [ElectrumServer(chain) for _ in range(2)]
    async with running(*servers) as bench:
        assert await value(bench, b"d/reorg") == b"on the branch that loses"
        chain.rewind(fork)
        chain.update(b"d/reorg", b"on the branch that wins")
        chain.mine_empty(9)
        for server in servers:
            server.announce()
        await synced(bench, chain.tip)
        assert await value(bench, b"d/reorg") == b"on the branch that wins"
        assert [bench.lies(n) for n in range(2)] == [0, 0]


async def test_an_update_that_a_reorganisation_took_back_does_not_hide_the_name() -> None:
    """Update, six blocks, update; then the branch with the second update loses."""
    chain = RegtestChain.recorded()
    chain.update(b"d/reorg", b"kept")
    chain.mine_empty(6)
    fork = chain.tip
    servers = [ElectrumServer(chain) for _ in range(2)]
    async with running(*servers) as bench:
        chain.update(b"d/reorg", b"lost")
        for server in servers:
            server.announce()
        await synced(bench, chain.tip)
        assert await value(bench, b"d/reorg") == b"kept"
        chain.rewind(fork)
        chain.mine_empty(2)
        for server in servers:
            server.announce()
        await synced(bench, chain.tip)
        assert await value(bench, b"d/reorg") == b"kept"
        assert [bench.lies(n) for n in range(2)] == [0, 0]


async def test_names_below_a_young_anchor_are_proven_after_the_way_back() -> None:
    chain = RegtestChain.recorded()
    anchor = Anchor(166, hash_from_hex(chain.blocks[166].block_hash))
    settings = replace(SETTINGS, anchor=anchor)
    async with running(ElectrumServer(chain), ElectrumServer(chain), settings=settings) as bench:
        assert await value(bench, NAME) == VALUE
        async with asyncio.timeout(30):
            while not bench.client.progress().is_complete:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert bench.client.progress().base == RECORDED_TIP - 30


async def test_with_a_checkpoint_a_single_header_is_proven_instead() -> None:
    chain = RegtestChain.recorded()
    leaves = [double_sha256(block.header[:80]) for block in chain.blocks[:161]]
    chain.mine_empty(10)
    settings = replace(
        SETTINGS,
        anchor=Anchor(175, hash_from_hex(chain.blocks[175].block_hash)),
        checkpoint=Checkpoint(160, merkle_tree(leaves)[-1][0]),
    )
    servers = [ElectrumServer(chain) for _ in range(2)]
    async with running(*servers, settings=settings) as bench:
        assert await value(bench, NAME) == VALUE
        assert bench.client.progress().base > 160
        assert ("blockchain.block.header", [159, 160]) in servers[0].requests


# -- servers that lie -----------------------------------------------------------------


def forge_merkle(entry: dict[str, Any]) -> None:
    entry["tx_merkle"]["merkle"] = ["11" * 32 for _ in entry["tx_merkle"]["merkle"]]


def cut_merkle(entry: dict[str, Any]) -> None:
    entry["tx_merkle"]["merkle"] = entry["tx_merkle"]["merkle"][:-1]


def other_name(entry: dict[str, Any]) -> None:
    txid = str(ANSWERS["d/plain6"]["txid"])
    entry["tx"] = CHAIN.transactions[txid].hex()


def forge_value(entry: dict[str, Any]) -> None:
    entry["tx"] = entry["tx"].replace(b"192.0.2.10".hex(), b"192.0.2.66".hex())


def old_version(entry: dict[str, Any]) -> None:
    entry["tx"] = "01000000" + entry["tx"][8:]


def node_as_transaction(entry: dict[str, Any]) -> None:
    entry["tx"] = serialise(1, [(bytes(36), b"")], [(0, bytes(4))]).hex()


def node_in_branch(entry: dict[str, Any]) -> None:
    bait = serialise(1, [(bytes(36), b"")], [(0, bytes(4))])
    entry["tx_merkle"] = {"merkle": [bait[:32][::-1].hex()], "pos": 1}


def wrong_position(entry: dict[str, Any]) -> None:
    entry["tx_merkle"]["pos"] ^= 1


def younger(entry: dict[str, Any]) -> None:
    entry["height"] -= 1


def oversized(entry: dict[str, Any]) -> None:
    entry["tx"] = "00" * 3_000_000


def not_hex(entry: dict[str, Any]) -> None:
    entry["tx"] = "zz"


LIES = {
    "forged merkle branch": in_proof(forge_merkle),
    "short merkle branch": in_proof(cut_merkle),
    "another name's transaction": in_proof(other_name),
    "altered value": in_proof(forge_value),
    "not a name transaction": in_proof(old_version),
    "64-byte transaction": in_proof(node_as_transaction),
    "64-byte node in the branch": in_proof(node_in_branch),
    "wrong position": in_proof(wrong_position),
    "wrong height": in_proof(younger),
    "not hexadecimal": in_proof(not_hex),
    "another script hash": lying(
        "blockchain.name.get_value_proof", lambda result: {"00" * 32: next(iter(result.values()))}
    ),
    "no object": lying("blockchain.name.get_value_proof", lambda result: [1]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_lie_is_caught_and_others_save_the_look_up(lie: Lie) -> None:
    liar = ElectrumServer(CHAIN, lie)
    async with running(liar, ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        for number in range(4):
            bench.key = bench.isolator.own_key(str(number))
            assert await value(bench, NAME) == VALUE
            if bench.lies(0):
                break
        else:
            await make_first(bench, 0)
            assert await value(bench, NAME) == VALUE
        assert bench.lies(0) == 1
        assert [bench.lies(n) for n in (1, 2)] == [0, 0]
        bench.key = bench.isolator.own_key("later")
        answer = await bench.lookup()
        assert bench.servers[0].label not in answer.servers


async def test_a_lie_to_one_key_does_not_end_what_another_key_asks_over_its_connection() -> None:
    """The server would learn that both are one client's."""
    liar = ElectrumServer(CHAIN)
    settings = replace(SETTINGS, quorum=1)
    async with running(
        liar, *(ElectrumServer(CHAIN) for _ in range(3)), settings=settings
    ) as bench:
        other, server = bench.isolator.own_key("another user"), bench.servers[0]
        session = await bench.client.pool.session(other, server)
        await make_first(bench, 0)
        liar.lie = LIES["forged merkle branch"]
        await bench.lookup()
        assert bench.lies(0) == 1
        assert session.is_usable
        liar.lie = honest
        answer = await bench.client.lookup(NAME, other)
        assert answer.servers == (server.label,)


async def test_how_long_a_server_is_waited_for_depends_on_the_keys_own_connections() -> None:
    """Else all identities of a client would hedge alike, and could be told by it."""
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        bench.client.settings = replace(bench.settings, hedge_after=60.0)
        panel = _Panel(bench.client, NameQuestion(NAME, bench.client.chain, 6), bench.key)
        for number in range(2):
            other = bench.isolator.own_key("another user")
            session = await bench.client.pool.session(other, bench.servers[number])
            session.round_trip = 5.0
        assert panel.hedge_delay() == 60.0
        session = await bench.client.pool.session(bench.key, bench.servers[0])
        session.round_trip = 0.3
        assert panel.hedge_delay() == pytest.approx(0.9)


async def make_first(bench: Bench, number: int) -> None:
    """Have the others look slow, so that this server is asked."""
    for other, server in enumerate(bench.servers):
        for _ in range(20):
            bench.client.key_scores.of(bench.key).answered(
                server, 0.01 if other == number else 5.0, 0.0
            )


@pytest.mark.parametrize("cause", ["long", "many parts", "ambiguous"])
async def test_what_a_names_owner_can_bring_about_costs_no_server_its_reputation(
    cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one look-up of a name made for that would take all servers away from everybody."""
    more = {"long": " " * 1_000_000, "many parts": [0] * 100_000, "ambiguous": None}[cause]
    answer = lying("blockchain.name.get_value_proof", lambda result: result | {"more": more})
    servers = [ElectrumServer(CHAIN, answer) for _ in range(3)]
    if cause == "ambiguous":
        monkeypatch.setattr(merkle, "is_transaction", lambda raw: len(raw) == 64)
    async with running(*servers) as bench:
        with pytest.raises(TemporaryFailure):
            await bench.lookup()
        assert [bench.lies(number) for number in range(3)] == [0, 0, 0]
        monkeypatch.undo()
        for server in servers:
            server.lie = honest
        assert await value(bench, NAME) == VALUE


@pytest.mark.parametrize("lie", [*LIES.values(), in_proof(oversized)], ids=[*LIES, "oversized"])
async def test_with_too_few_honest_servers_the_look_up_fails(lie: Lie) -> None:
    async with running(ElectrumServer(CHAIN, lie), ElectrumServer(CHAIN)) as bench:
        with pytest.raises(TemporaryFailure) as failed:
            await bench.lookup()
        assert failed.value.kind in (ErrorKind.NAME_NO_QUORUM, ErrorKind.NAME_BACKEND_DOWN)
        assert "plain4" not in str(failed.value)


def stale(method: str, params: list[Any], result: Any) -> Any:
    """Withhold what is newer than height 158."""
    if method.endswith("get_value_proof"):
        key = params[0]
        full = [entry for entry in result[key] if entry["height"] <= 158]
        return {key: full}
    return result


async def test_a_withheld_update_is_found_at_another_server_and_the_censor_suspected() -> None:
    censor, honest = ElectrumServer(CHAIN, stale), ElectrumServer(CHAIN)
    async with running(censor, honest) as bench:
        await bench.lookup()
        honest.delay = 0.3  # the censor is the first to answer
        assert await value(bench, b"d/updated-thrice") == b'{"ip":"192.0.2.83"}'
        now = asyncio.get_running_loop().time()
        scores = bench.client.key_scores.of(bench.key)
        assert scores.of(bench.servers[0]).suspect_until > now
        assert scores.of(bench.servers[1]).suspect_until < now


async def test_an_operator_with_two_fast_servers_is_no_quorum_while_others_may_answer() -> None:
    censors, honest = [ElectrumServer(CHAIN, stale) for _ in range(2)], ElectrumServer(CHAIN)
    async with running(*censors, honest, operators="aab") as bench:
        await bench.lookup()
        honest.delay = 3 * bench.settings.hedge_after
        assert await value(bench, b"d/updated-thrice") == b'{"ip":"192.0.2.83"}'


async def test_an_operator_alone_is_believed_once_others_have_failed() -> None:
    """And nobody is asked in vain meanwhile."""
    servers, dead = [ElectrumServer(CHAIN) for _ in range(4)], ElectrumServer(CHAIN, silent)
    settings = replace(SETTINGS, answer_timeout=2.0)
    async with running(*servers, dead, operators="aaaab", settings=settings) as bench:
        assert await value(bench, NAME) == VALUE
        assert await reason(bench, b"d/nope") is ErrorKind.NAME_ABSENT
        asked = [method for server in servers for method, _ in server.requests]
        assert asked.count("blockchain.name.get_value_proof") < 6


async def test_an_expired_name_presented_as_live_stays_expired() -> None:
    def revive(entry: dict[str, Any]) -> None:
        entry["height"] = 160

    async with running(
        ElectrumServer(CHAIN, in_proof(revive)), ElectrumServer(CHAIN), ElectrumServer(CHAIN)
    ) as bench:
        await make_first(bench, 0)
        assert await reason(bench, b"d/expired") is ErrorKind.NAME_EXPIRED


async def test_a_claim_of_a_taller_chain_expires_nothing() -> None:
    taller = lying(
        "blockchain.headers.subscribe", lambda tip: tip | {"height": tip["height"] + 1000}
    )
    async with running(
        ElectrumServer(CHAIN, taller), ElectrumServer(CHAIN), ElectrumServer(CHAIN)
    ) as bench:
        assert await value(bench, NAME) == VALUE
        assert bench.client.chain.tip_height == RECORDED_TIP


async def test_a_newest_header_of_any_length_stops_no_look_up() -> None:
    """Who mines a block, or passes it on first, can add to what proves its work."""
    fat = lying("blockchain.headers.subscribe", lambda tip: tip | {"hex": tip["hex"] + "0" * 2**20})
    servers = [ElectrumServer(CHAIN) for _ in range(2)]
    async with running(*servers) as bench:
        assert await value(bench, NAME) == VALUE
        for server in servers:
            server.lie = fat
            server.announce()
        assert await value(bench, NAME) == VALUE
    async with running(*servers) as bench:
        assert await value(bench, NAME) == VALUE
        assert [bench.lies(number) for number in range(2)] == [0, 0]


async def test_a_lagging_server_does_not_count() -> None:
    behind = RegtestChain(CHAIN.blocks[:160])
    async with running(
        ElectrumServer(behind), ElectrumServer(CHAIN), ElectrumServer(CHAIN)
    ) as bench:
        await make_first(bench, 0)
        assert await value(bench, NAME) == VALUE
        answer = await bench.lookup(b"d/nope")
        assert bench.servers[0].label not in answer.servers


async def test_absence_takes_two_even_where_one_is_enough_for_a_value() -> None:
    settings = replace(SETTINGS, quorum=1)
    async with running(ElectrumServer(CHAIN), settings=settings) as bench:
        assert await value(bench, NAME) == VALUE
        with pytest.raises(TemporaryFailure):
            await bench.lookup(b"d/nope")


async def test_a_servers_refusal_is_no_lie() -> None:
    def refuse(method: str, params: list[Any], result: Any) -> Any:
        if method.endswith("get_value_proof"):
            raise Fault(-101)
        return result

    async with running(
        ElectrumServer(CHAIN, refuse), ElectrumServer(CHAIN), ElectrumServer(CHAIN)
    ) as bench:
        await make_first(bench, 0)
        assert await value(bench, NAME) == VALUE
        assert bench.lies(0) == 0


# -- servers that are dead or slow ------------------------------------------------------


def silent(method: str, params: list[Any], result: Any) -> Any:
    if method.endswith("get_value_proof"):
        raise Silence
    return result


async def test_one_dead_one_slow_one_lying_and_everybody_is_answered_in_time() -> None:
    servers = [
        ElectrumServer(CHAIN, silent),
        ElectrumServer(CHAIN, LIES["forged merkle branch"]),
        ElectrumServer(CHAIN),
        ElectrumServer(CHAIN),
        ElectrumServer(CHAIN),
    ]
    settings = replace(
        SETTINGS,
        deadline=30.0,
        answer_timeout=8.0,
        pool=replace(SETTINGS.pool, wait=20.0, open_timeout=10.0, opens_per_minute=60_000),
    )
    async with running(*servers, settings=settings) as bench:
        bench.dialer.dead.add(bench.servers[4].label)
        names = [name for name, said in ANSWERS.items() if said.get("expired") is False]
        keys = [bench.isolator.own_key(str(n)) for n in range(8)]
        jobs = [(names[n % len(names)], keys[n % len(keys)]) for n in range(80)]
        answers = await asyncio.gather(
            *(bench.client.lookup(name.encode(), key) for name, key in jobs)
        )
        for (name, _), answer in zip(jobs, answers, strict=True):
            assert isinstance(answer, Found)
            assert answer.value == str(ANSWERS[name]["value"]).encode()


async def test_without_any_server_it_says_so() -> None:
    settings = replace(SETTINGS, ready_wait=0.3)
    server = ElectrumServer(CHAIN)
    async with server:
        bench = Bench([server, server], replace(settings, quorum=1))
        bench.dialer.dead.add(bench.servers[0].label)
        bench.client.start()
        with pytest.raises(TemporaryFailure) as failed:
            await bench.lookup()
        assert failed.value.kind is ErrorKind.NAME_BACKEND_DOWN
        await bench.client.close()


async def test_the_evidence_says_whether_all_blocks_are_proven() -> None:
    assert Evidence.SPV_SAMPLED.value == f"spv-sampled-2^-{SECURITY_BITS}"
    servers = ElectrumServer(CHAIN), ElectrumServer(CHAIN)
    async with running(*servers) as bench:
        answer = await bench.lookup()
        assert isinstance(answer, Found)
        assert answer.evidence is Evidence.SPV_CONFIRMED
        bench.client.chain._proven[3] = 0
        answer = await bench.lookup()
        assert isinstance(answer, Found)
        assert answer.evidence is Evidence.SPV_SAMPLED


async def test_look_ups_that_waited_are_connected_and_begin_each_after_its_own_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else servers would see, at one moment, which identities are one client's."""
    asked: list[float] = []
    clock = asyncio.get_running_loop().time

    def note(method: str, params: list[Any], result: Any) -> Any:
        if method.endswith("get_value_proof"):
            asked.append(clock())
        return result

    class Drawn:
        def uniform(self, least: float, most: float) -> float:
            assert (least, most) == (0.0, 2.0)
            return delays.pop()

    released, delays = False, [0.7, 0.2]
    monkeypatch.setattr(backend, "_RANDOM", Drawn())
    monkeypatch.setattr(HeaderSync, "_agrees_with_a_server", lambda self: released)
    settings = replace(SETTINGS, quorum=1, ready_spread=2.0)
    async with running(ElectrumServer(CHAIN, note), settings=settings) as bench:
        keys = [bench.isolator.own_key(str(n)) for n in range(2)]
        look_ups = asyncio.gather(*(bench.client.lookup(NAME, key) for key in keys))
        await until(lambda: bench.client.pool.counts()[1] == 2)
        assert asked == []
        released = True
        bench.client.sync.nudge()
        await bench.client.sync.ready.wait()
        ready = clock()
        await look_ups
        assert [at - ready for at in asked] == pytest.approx([0.2, 0.7], abs=0.15)
        assert isinstance(await bench.client.lookup(NAME, keys[0]), Found)


async def test_an_old_tip_means_that_blocks_are_withheld() -> None:
    settings = replace(SETTINGS, max_tip_age=86400.0)
    for age, fails in ((86300, False), (86500, True)):
        servers = [ElectrumServer(CHAIN) for _ in range(2)]
        async with contextlib.AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server)
            bench = Bench(servers, settings)
            bench.age = age
            bench.client.start()
            if fails:
                with pytest.raises(TemporaryFailure):
                    await bench.lookup()
            else:
                assert await value(bench, NAME) == VALUE
            await bench.client.close()


def test_a_quorum_needs_as_many_servers() -> None:
    server = parse_server("127.0.0.1:1:t")
    for quorum in (0, 2):
        with pytest.raises(ConfigError, match="quorum"):
            ElectrumBackend(
                DirectDialer(),
                Isolator(),
                replace(SETTINGS, servers=[server], quorum=quorum),
            )
