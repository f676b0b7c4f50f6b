from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.reserve import emptiness
from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import (
    ClientProtocol,
    Credentials,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    client_of_address,
)
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.session import ElectrumSession
from tests.kit.electrum_server import Cut, ElectrumServer
from tests.kit.memory_net import MemoryNet
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.waiting import until

pytestmark = pytest.mark.virtual_clock(grace_s=0)
CHAIN = RegtestChain.recorded()
NO_RESERVE = PoolSettings(reserve=0, wait=2.0, open_timeout=2.0)
"""Look-ups open their own connections."""
FILLED = PoolSettings(reserve=12, wait=2.0, open_timeout=2.0)
"""After an hour or two; lives last 800 s on average."""
BRISK = replace(FILLED, openings_per_hour=36_000.0, reserve=200)
"""Ten a second, each for 20 s."""


class Bench:
    """A running pool over servers of ours."""

    def __init__(
        self, servers: list[ElectrumServer], settings: PoolSettings, rng: random.Random | None
    ) -> None:
        self.isolator = Isolator()
        self.servers = [
            parse_server(f"server{n}.example:1:t", f"operator{n}") for n in range(len(servers))
        ]
        labels = [server.label for server in self.servers]
        self.net = self.dialer = MemoryNet(dict(zip(labels, servers, strict=True)))
        self.pool = ServerPool(
            self.net, self.isolator, REGTEST, Scores(self.servers), self.net, settings, rng
        )

    def key(self, user: str, address: str = "192.0.2.1") -> IsolationKey:
        """A key of one of a client's users."""
        client = client_of_address(address)
        stream = IsolationTuple(client, ClientProtocol.SOCKS5, username=user.encode())
        return self.isolator.key_for(ListenerRule(b"a listener"), stream)


@contextlib.asynccontextmanager
async def running(
    *servers: ElectrumServer,
    settings: PoolSettings = NO_RESERVE,
    rng: random.Random | None = None,
) -> AsyncIterator[Bench]:
    bench = Bench(list(servers), settings, rng)
    task = asyncio.create_task(bench.pool.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pair(credentials: Credentials) -> tuple[bytes, bytes]:
    return (credentials.username, credentials.password)


class Chance(random.Random):
    """Draws what it was told to, by the rate it is asked for; else never."""

    def __init__(self, drawn: dict[float, list[float]]) -> None:
        super().__init__(1)
        self._drawn = drawn

    def expovariate(self, lambd: float = 1.0) -> float:
        left = self._drawn.get(lambd)
        return left.pop(0) if left else 1e9


class Births:
    """A server that notes when connections came to it."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.server = ElectrumServer(CHAIN, self.note)

    def note(self, method: str, params: list[object], result: object) -> object:
        if method == "server.version":
            self.times.append(asyncio.get_running_loop().time())
        return result


def cut(method: str, params: list[object], result: object) -> object:
    raise Cut


# -- one key, one connection -------------------------------------------------------------


async def test_a_key_keeps_its_connection_and_shares_it_with_nobody() -> None:
    async with running(ElectrumServer(CHAIN), settings=BRISK) as bench:
        (server,), pool = bench.servers, bench.pool
        one, two = (bench.key(name) for name in ("one", "two"))
        await until(lambda: pool.counts()[0] >= 4)
        first = await pool.session(one, server)
        assert await pool.session(one, server) is first
        others = [await pool.session(bench.key(f"other {n}"), server) for n in range(10)]
        assert len({first, await pool.session(two, server), *others}) == 12
        assert pool.servers_of(one) == [server.label]
        credentials = [pair(item) for item in bench.dialer.credentials]
        assert len(set(credentials)) == len(credentials)


async def test_a_hundred_concurrent_askers_of_one_key_share_one_connection() -> None:
    async with running(ElectrumServer(CHAIN)) as bench:
        key = bench.key("one")
        sessions = await asyncio.gather(
            *(bench.pool.session(key, bench.servers[0]) for _ in range(100))
        )
        assert len({id(session) for session in sessions if not session.closed.is_set()}) == 1
        assert bench.pool.counts()[1] == 1


async def test_without_a_reserve_each_key_opens_its_own_at_once() -> None:
    """None of them waits for another: that would tell one identity of the others."""
    births = Births()
    async with running(births.server) as bench:
        keys = [bench.key(str(n)) for n in range(20)]
        sessions = await asyncio.gather(
            *(bench.pool.session(key, bench.servers[0]) for key in keys)
        )
        assert len({id(session) for session in sessions}) == 20
    assert births.times[-1] - births.times[0] < 1.0


async def test_upkeep_never_uses_a_connection_that_carried_a_name() -> None:
    async with running(ElectrumServer(CHAIN), settings=BRISK) as bench:
        server, pool = bench.servers[0], bench.pool
        bound = await pool.session(bench.key("one"), server)
        reserved = await pool.reserve(server)
        assert reserved is not bound
        assert await pool.session(bench.key("one"), server) is bound
        names = [await pool.session(bench.key(f"user {n}"), server) for n in range(20)]
        assert reserved not in names


async def test_a_connection_that_ended_is_replaced_at_the_next_use() -> None:
    births = Births()
    async with running(births.server) as bench:
        key = bench.key("one")
        first = await bench.pool.session(key, bench.servers[0])
        births.server.lie = cut
        first.ping()
        await first.closed.wait()
        births.server.lie = births.note
        assert bench.pool.servers_of(key) == []
        await asyncio.sleep(0.05)
        assert len(births.times) == 1
        second = await bench.pool.session(key, bench.servers[0])
        assert not second.closed.is_set()


# -- clocks --------------------------------------------------------------------------------


async def test_connections_are_ready_before_anybody_asks() -> None:
    births = Births()
    async with running(births.server, settings=FILLED) as bench:
        await asyncio.sleep(7200)
        assert bench.pool.counts()[0] >= 3
        opened = len(births.times)
        await bench.pool.session(bench.key("one"), bench.servers[0])
        assert len(births.times) == opened


async def test_connections_are_opened_by_a_clock_without_memory_and_at_no_other_time() -> None:
    births = Births()
    settings = replace(FILLED, ping_after=(1e9, 1e9))
    async with running(births.server, settings=settings, rng=random.Random(1)) as bench:
        await asyncio.sleep(1)
        assert bench.pool.counts()[0] == 0
        await asyncio.sleep(8 * 3600)
    gaps = [later - before for before, later in pairwise([0.0, *births.times])]
    mean = statistics.fmean(gaps)
    assert 0.8 < mean / (3600 / FILLED.openings_per_hour) < 1.25
    # exponential: the standard deviation is the mean, and a constant or uniform one is not
    assert 0.85 < statistics.pstdev(gaps) / mean < 1.15


async def test_the_clock_opens_the_same_whether_or_not_anything_is_taken() -> None:
    """With the same chance, the same moments: taking one brings no other one about."""

    async def births_with(takes: int) -> list[float]:
        births = Births()
        began = asyncio.get_running_loop().time()
        chance = Chance({FILLED.openings_per_hour / 3600.0: [100.0] * 40})
        async with running(births.server, settings=FILLED, rng=chance) as bench:
            await asyncio.sleep(2050)
            for number in range(takes):
                await bench.pool.session(bench.key(str(number)), bench.servers[0])
            bench.isolator.new_epoch()
            await asyncio.sleep(3000)
        return [round(moment - began, 1) for moment in births.times]

    undisturbed = await births_with(0)
    assert len(undisturbed) == 40
    assert await births_with(8) == undisturbed


@pytest.mark.parametrize("bound", [False, True])
async def test_lives_are_drawn_at_birth_whatever_becomes_of_the_connection(bound: bool) -> None:
    chance = Chance({FILLED.openings_per_hour / 3600.0: [50.0], 1 / FILLED.life: [700.0]})
    async with running(ElectrumServer(CHAIN), settings=FILLED, rng=chance) as bench:
        await asyncio.sleep(60)
        assert bench.pool.counts()[0] == 1
        if bound:
            session = await bench.pool.session(bench.key("one"), bench.servers[0])
        else:
            (session,) = bench.pool._reserve[bench.servers[0].label]
        await asyncio.sleep(600)
        if bound:
            assert await bench.pool.session(bench.key("one"), bench.servers[0]) is session
        assert not session.closed.is_set()
        await asyncio.sleep(100)
        assert session.closed.is_set()
        assert bench.pool.counts() == (0, 0, 0)


async def test_a_look_up_under_way_is_finished_and_the_key_then_binds_another() -> None:
    async with running(ElectrumServer(CHAIN), settings=replace(NO_RESERVE, own_life=100)) as bench:
        key = bench.key("one")
        session = await bench.pool.session(key, bench.servers[0])
        with session.in_use():
            await asyncio.sleep(5000)
            assert not session.closed.is_set()
            other = await bench.pool.session(key, bench.servers[0])
            assert other is not session
        assert session.closed.is_set()
        assert not other.closed.is_set()


async def test_any_of_the_reserve_is_as_likely_to_be_taken() -> None:
    """The oldest first would tell that of two uses the one of the younger came later."""
    async with running(ElectrumServer(CHAIN), settings=replace(BRISK, reserve=2000)) as bench:
        pool, server = bench.pool, bench.servers[0]
        await asyncio.sleep(20)
        ranks = []
        for number in range(60):
            ages = list(pool._reserve[server.label])
            session = await pool.session(bench.key(str(number)), server)
            ranks.append(ages.index(session) / len(ages))
        assert 0.3 < statistics.fmean(ranks) < 0.7
        assert statistics.pstdev(ranks) > 0.15


async def test_the_times_of_pings_are_random_and_on_no_grid() -> None:
    clock = asyncio.get_running_loop().time
    times: list[float] = []

    def noted(method: str, params: list[object], result: object) -> object:
        if method == "server.ping":
            times.append(clock())
        return result

    settings = replace(NO_RESERVE, own_life=1e9)
    async with running(ElectrumServer(CHAIN, noted), settings=settings) as bench:
        await bench.pool.session(bench.key("one"), bench.servers[0])
        await asyncio.sleep(60 * 451)
    gaps = [later - before for before, later in pairwise(times)]
    assert 199.0 < min(gaps) < 280.0 < 370.0 < max(gaps) < 451.0
    # connections pinged on one grid would show a server that they are of one client
    assert len({round(gap, 1) for gap in gaps}) > 40


def test_a_new_identity_meets_the_reserve_empty_less_than_once_in_a_thousand() -> None:
    """At the load for which it is made (docs/decisions/0100-reserve.md): else that it is empty
    would tell one identity what the others have taken."""
    settings = PoolSettings()
    for servers in (4, 6, 8):
        assert settings.asked * emptiness(settings, servers) < 1e-3
    assert settings.asked * emptiness(replace(settings, reserve=48), 8) > 1e-3


# -- a new identity ------------------------------------------------------------------------


async def test_of_an_old_epoch_nothing_that_carried_a_name_can_be_had_again() -> None:
    async with running(ElectrumServer(CHAIN), settings=replace(BRISK, reserve=400)) as bench:
        server, pool = bench.servers[0], bench.pool
        await asyncio.sleep(30)
        old = [bench.key(str(n)) for n in range(20)]
        carried = {await pool.session(key, server) for key in old}
        bench.isolator.new_epoch()
        assert pool.counts()[1] == 0
        with pytest.raises(DialError) as failed:
            await pool.session(old[0], server)
        assert failed.value.kind is ErrorKind.STALE_KEY
        assert not any(pool.servers_of(key) for key in old)
        new = {await pool.session(bench.key(str(n)), server) for n in range(20)}
        assert not carried & new


async def test_a_new_epoch_neither_opens_nor_closes_anything() -> None:
    """What ended or began with it would be known for one client's, just when that client
    wants to be another."""
    births, ends = Births(), list[float]()
    settings = replace(FILLED, openings_per_hour=1e-6)
    async with running(births.server, settings=settings) as bench:
        pool, clock = bench.pool, asyncio.get_running_loop().time
        for _ in range(5):
            await pool._fill(bench.servers[0])
        upkeep = await pool.reserve(bench.servers[0])
        await pool.session(bench.key("one"), bench.servers[0])
        for session in pool._open:
            session.on_closed = note_end(session, ends)
        before = len(births.times)
        now = clock()
        bench.isolator.new_epoch()
        await asyncio.sleep(60)
        assert (len(births.times), ends) == (before, [])
        assert not upkeep.closed.is_set()
        await pool.session(bench.key("two"), bench.servers[0])
        assert len(births.times) == before
        assert clock() == now + 60


def note_end(session: ElectrumSession, ends: list[float]) -> Callable[[], None]:
    then, clock = session.on_closed, asyncio.get_running_loop().time

    def ended() -> None:
        ends.append(clock())
        then()

    return ended


async def test_a_key_whose_epoch_ended_while_it_waited_is_given_nothing() -> None:
    async with running(ElectrumServer(CHAIN, delay=0.2)) as bench:
        key = bench.key("one")
        asking = asyncio.create_task(bench.pool.session(key, bench.servers[0]))
        await asyncio.sleep(0.1)
        bench.isolator.new_epoch()
        with pytest.raises(DialError) as failed:
            await asking
        assert failed.value.kind is ErrorKind.STALE_KEY
        assert bench.pool.counts()[1] == 0
        (session,) = bench.pool._open  # and it does not end there and then
        assert not session.closed.is_set()
        assert await bench.pool.session(bench.key("one"), bench.servers[0]) is not session


async def test_one_identity_alone_can_be_unbound() -> None:
    async with running(ElectrumServer(CHAIN)) as bench:
        one, two = bench.key("one"), bench.key("two")
        first = await bench.pool.session(one, bench.servers[0])
        other = await bench.pool.session(two, bench.servers[0])
        bench.pool.unbind(one)
        assert not first.closed.is_set()
        assert await bench.pool.session(one, bench.servers[0]) is not first
        assert await bench.pool.session(two, bench.servers[0]) is other


# -- shares --------------------------------------------------------------------------------


async def test_a_busy_client_leaves_connections_to_others() -> None:
    async with running(ElectrumServer(CHAIN), settings=replace(NO_RESERVE, max_own=8)) as bench:
        server = bench.servers[0]
        outcomes = await asyncio.gather(
            *(bench.pool.session(bench.key(str(n)), server) for n in range(30)),
            return_exceptions=True,
        )
        refused = [o.kind for o in outcomes if isinstance(o, DialError)]
        assert refused == [ErrorKind.BUSY] * 26
        for number in range(2):
            await bench.pool.session(bench.key("one", f"198.51.100.{number}"), server)


async def test_what_could_not_be_opened_takes_nobodys_place() -> None:
    """Or a server that hangs up would leave no look-up a connection anywhere."""
    hangs_up, serves = ElectrumServer(CHAIN, cut), ElectrumServer(CHAIN)
    async with running(hangs_up, serves, settings=replace(NO_RESERVE, max_own=8)) as bench:
        keys = [bench.key("one", f"198.51.100.{number}") for number in range(20)]
        for key in keys:
            with pytest.raises(DialError):
                await bench.pool.session(key, bench.servers[0])
        outcomes = await asyncio.gather(
            *(bench.pool.session(key, bench.servers[1]) for key in keys[:2]),
            return_exceptions=True,
        )
        assert [one for one in outcomes if isinstance(one, DialError)] == []


async def test_a_busy_client_leaves_of_the_reserve_to_others_at_every_server() -> None:
    births = [Births() for _ in range(3)]
    chance = Chance({FILLED.openings_per_hour / 3600.0: [10.0] * 90})
    servers = [one.server for one in births]
    settings = replace(FILLED, opens_per_minute=6000, max_own=6000)
    async with running(*servers, settings=settings, rng=chance) as bench:
        pool = bench.pool
        await asyncio.sleep(1000)
        ready = {label: len(sessions) for label, sessions in pool._reserve.items()}
        assert sum(ready.values()) == 90
        for number in range(90):
            for server in bench.servers:
                key = bench.key(str(number), f"127.0.0.{number + 1}")
                await pool.session(key, server)
        for label, sessions in pool._reserve.items():
            assert len(sessions) >= ready[label] // 3
        opened = [len(one.times) for one in births]
        for server in bench.servers:
            await pool.session(bench.key("one", "198.51.100.1"), server)
        assert [len(one.times) for one in births] == opened


async def test_the_circuits_of_a_client_are_limited_and_those_of_another_are_not() -> None:
    settings = replace(NO_RESERVE, opens_per_minute=6, wait=15.0)
    async with running(ElectrumServer(CHAIN), settings=settings) as bench:
        clock, server = asyncio.get_running_loop().time, bench.servers[0]
        began = clock()

        async def took(number: int, address: str = "192.0.2.1") -> float:
            await bench.pool.session(bench.key(str(number), address), server)
            return clock() - began

        outcomes = await asyncio.gather(
            *(took(number) for number in range(9)),
            took(0, "198.51.100.1"),
            return_exceptions=True,
        )
        assert [round(o) for o in outcomes[:7] if isinstance(o, float)] == [0] * 6 + [10]
        assert [type(o) for o in outcomes[7:9]] == [DialError, DialError]
        assert outcomes[9] == 0.0


async def test_the_wait_is_bounded() -> None:
    settings = replace(NO_RESERVE, wait=0.2)
    async with running(ElectrumServer(CHAIN, delay=5), settings=settings) as bench:
        with pytest.raises(DialError) as failed:
            async with asyncio.timeout(3):
                await bench.pool.session(bench.key("one"), bench.servers[0])
        assert failed.value.kind is ErrorKind.DIAL_TIMEOUT
        assert bench.pool._own.held == 0


# -- servers that fail -----------------------------------------------------------------------


async def test_what_one_key_finds_out_by_itself_is_not_known_to_the_pool() -> None:
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        dead = bench.servers[0]
        bench.dialer.dead.add(dead.label)
        for number in range(5):
            with pytest.raises(DialError):
                await bench.pool.session(bench.key(str(number)), dead)
        assert bench.pool.scores.of(dead).failures == 0


async def test_a_server_that_refuses_what_the_clock_opens_is_down_for_all() -> None:
    settings = replace(FILLED, ping_after=(1e9, 1e9))
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN), settings=settings) as bench:
        dead = bench.servers[0]
        bench.dialer.dead.add(dead.label)
        await until(lambda: bench.pool.scores.of(dead).failures >= 3, 36_000)
        await until(lambda: bench.pool.counts()[0] >= 2, 36_000)


async def test_a_server_that_breaks_the_protocol_is_a_liar() -> None:
    def nonsense(method: str, params: list[object], result: object) -> object:
        return 7

    settings = replace(BRISK, asked=1)
    async with running(
        ElectrumServer(CHAIN, nonsense), ElectrumServer(CHAIN), settings=settings
    ) as bench:
        scores = bench.pool.scores
        await until(lambda: scores.of(bench.servers[0]).lies >= 1)
        await until(lambda: bench.pool.counts()[0] >= 3)
        assert scores.of(bench.servers[0]).lies <= 2
        assert scores.choose(asyncio.get_running_loop().time())[0] is bench.servers[1]


async def test_a_closed_pool_fails_waiting_look_ups() -> None:
    async with running(ElectrumServer(CHAIN, delay=5)) as bench:
        asking = asyncio.create_task(bench.pool.session(bench.key("x"), bench.servers[0]))
        await asyncio.sleep(0.05)
        await bench.pool.close()
        with pytest.raises((DialError, asyncio.CancelledError)):
            await asking
        with pytest.raises(DialError):
            await bench.pool.session(bench.key("y"), bench.servers[0])


async def test_a_renewal_unbinds_one_key_and_opens_and_closes_nothing() -> None:
    async with running(ElectrumServer(CHAIN), settings=replace(BRISK, reserve=400)) as bench:
        server, pool = bench.servers[0], bench.pool
        await asyncio.sleep(30)
        old, other = bench.key("old"), bench.key("other")
        carried, stays = await pool.session(old, server), await pool.session(other, server)
        count = len(pool._open)
        bench.isolator.renew(old.label)
        assert not pool.servers_of(old)
        assert (len(pool._open), carried.is_usable) == (count, True)
        with pytest.raises(DialError) as failed:
            await pool.session(old, server)
        assert failed.value.kind is ErrorKind.STALE_KEY
        assert await pool.session(bench.key("old"), server) is not carried
        assert await pool.session(other, server) is stays
