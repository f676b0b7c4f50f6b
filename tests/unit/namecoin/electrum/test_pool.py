from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import Credentials, Isolator
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import Server, parse_server
from isoproxy.namecoin.electrum.session import ElectrumSession
from isoproxy.namecoin.electrum.tls import PinStore, TlsPolicy
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrum_server import ElectrumServer
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.waiting import until

CHAIN = RegtestChain.recorded()
QUICK = PoolSettings(wait=2.0, open_timeout=2.0, refill_after=0.05)


class Bench:
    """A running pool over servers of ours."""

    def __init__(self, servers: list[ElectrumServer], settings: PoolSettings) -> None:
        self.isolator = Isolator()
        self.dialer = DirectDialer()
        self.servers = [at(server, f"operator{n}") for n, server in enumerate(servers)]
        self.pool = ServerPool(
            self.dialer,
            self.isolator,
            REGTEST,
            Scores(self.servers),
            TlsPolicy(PinStore()),
            settings,
        )


def at(server: ElectrumServer, operator: str = "") -> Server:
    return parse_server(f"127.0.0.1:{server.port}:t", operator)


@contextlib.asynccontextmanager
async def running(*servers: ElectrumServer, settings: PoolSettings = QUICK) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server)
        bench = Bench(list(servers), settings)
        task = asyncio.create_task(bench.pool.run())
        try:
            yield bench
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_connections_are_ready_before_anybody_asks() -> None:
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        await until(lambda: bench.pool.counts() == (4, 0, 0))
        assert len(set(map(pair, bench.dialer.credentials))) == 4


def pair(credentials: Credentials) -> tuple[bytes, bytes]:
    return (credentials.username, credentials.password)


async def test_a_key_keeps_its_connection_and_shares_it_with_nobody() -> None:
    async with running(ElectrumServer(CHAIN)) as bench:
        (server,), pool = bench.servers, bench.pool
        one, two = (bench.isolator.own_key(name) for name in ("one", "two"))
        await until(lambda: pool.counts() == (2, 0, 0))
        first = await pool.session(one, server)
        assert await pool.session(one, server) is first
        other = await pool.session(two, server)
        assert other is not first
        assert pool.servers_of(one) == [server.label]
        await until(lambda: pool.counts()[0] == 2)
        assert pool.counts() == (2, 2, 0)
        credentials = [pair(item) for item in bench.dialer.credentials]
        assert len(set(credentials)) == len(credentials)


async def test_a_hundred_concurrent_askers_of_one_key_share_one_connection() -> None:
    async with running(ElectrumServer(CHAIN)) as bench:
        key = bench.isolator.own_key("one")
        sessions = await asyncio.gather(
            *(bench.pool.session(key, bench.servers[0]) for _ in range(100))
        )
        assert len({id(session) for session in sessions if not session.closed.is_set()}) == 1
        assert bench.pool.counts()[1] == 1


async def test_an_empty_pool_makes_wait_and_not_fail() -> None:
    settings = replace(QUICK, clean=1)
    async with running(ElectrumServer(CHAIN, delay=0.05), settings=settings) as bench:
        keys = [bench.isolator.own_key(str(n)) for n in range(8)]
        sessions = await asyncio.gather(
            *(bench.pool.session(key, bench.servers[0]) for key in keys)
        )
        assert len({id(session) for session in sessions}) == 8


async def test_the_wait_is_bounded() -> None:
    settings = replace(QUICK, wait=1.0, burst=1, opens_per_minute=1, clean=0)
    async with running(ElectrumServer(CHAIN), settings=settings) as bench:
        await bench.pool.session(bench.isolator.own_key("first"), bench.servers[0])
        began = asyncio.get_running_loop().time()
        with pytest.raises(DialError) as failed:
            await bench.pool.session(bench.isolator.own_key("second"), bench.servers[0])
        assert failed.value.kind is ErrorKind.DIAL_TIMEOUT
        assert asyncio.get_running_loop().time() - began < 20.0


async def test_new_circuits_are_limited() -> None:
    settings = replace(QUICK, burst=3, opens_per_minute=60, clean=10)
    async with running(ElectrumServer(CHAIN), settings=settings) as bench:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(30):
            while len(bench.dialer.credentials) < 4:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.02)
        assert loop.time() - began > 0.8
        await asyncio.sleep(0.3)
        assert 4 <= len(bench.dialer.credentials) <= 4 + loop.time() - began


async def test_a_dead_server_fails_at_once_and_is_left_alone() -> None:
    async with running(ElectrumServer(CHAIN), ElectrumServer(CHAIN)) as bench:
        dead = bench.servers[0]
        bench.dialer.dead.add(dead.label)
        bench.pool.drop_nameless()
        with pytest.raises(DialError):
            async with asyncio.timeout(1.0):
                await bench.pool.session(bench.isolator.own_key("x"), dead)
        loop = asyncio.get_running_loop()
        assert not bench.pool.scores.is_due(dead, loop.time())
        await bench.pool.session(bench.isolator.own_key("x"), bench.servers[1])


async def test_of_an_old_epoch_nothing_can_be_had_again() -> None:
    async with running(ElectrumServer(CHAIN)) as bench:
        server, pool = bench.servers[0], bench.pool
        key = bench.isolator.own_key("one")
        await pool.session(key, server)
        reserved = await pool.reserve(server)
        await until(lambda: pool.counts()[0] == 2)
        before = len(bench.dialer.credentials)
        bench.isolator.new_epoch()
        assert reserved.closed.is_set()
        assert pool.counts() == (0, 1, 0)
        with pytest.raises(DialError) as failed:
            await pool.session(key, server)
        assert failed.value.kind is ErrorKind.STALE_KEY
        await until(lambda: pool.counts()[0] == 2)
        credentials = [pair(item) for item in bench.dialer.credentials]
        assert not set(credentials[:before]) & set(credentials[before:])


@pytest.mark.virtual_clock
async def test_a_new_epoch_does_not_show_servers_which_connections_were_one_clients() -> None:
    server, loop = ElectrumServer(CHAIN), asyncio.get_running_loop()
    ends: list[float] = []

    async def watch(session: ElectrumSession) -> None:
        await session.closed.wait()
        ends.append(loop.time())

    async with running(server, settings=PoolSettings(clean=1)) as bench:
        keys = [bench.isolator.own_key(str(n)) for n in range(4)]
        sessions = [await bench.pool.session(key, bench.servers[0]) for key in keys]
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(watch(session))
            bench.isolator.new_epoch()
    # as if none had been used any more, each at a time of its own
    assert 800.0 < min(ends) - began < max(ends) - began < 1000.0
    assert min(later - before for before, later in pairwise(sorted(ends))) > 0.0


async def test_upkeep_never_uses_a_connection_that_carried_a_name() -> None:
    async with running(ElectrumServer(CHAIN)) as bench:
        server, pool = bench.servers[0], bench.pool
        key = bench.isolator.own_key("one")
        await until(lambda: pool.counts() == (2, 0, 0))
        bound = await pool.session(key, server)
        reserved = await pool.reserve(server)
        assert reserved is not bound
        assert await pool.session(key, server) is bound
        pool.release(reserved)
        assert await pool.reserve(server) not in (bound, reserved)


async def test_a_connection_under_way_when_the_epoch_changes_is_not_used() -> None:
    async with running(ElectrumServer(CHAIN, delay=0.2)) as bench:
        key = bench.isolator.own_key("one")
        asking = asyncio.create_task(bench.pool.session(key, bench.servers[0]))
        await asyncio.sleep(0.1)
        bench.isolator.new_epoch()
        with pytest.raises(DialError):
            await asking
        assert bench.pool.servers_of(key) == []


async def test_a_connection_that_ended_is_replaced() -> None:
    server = ElectrumServer(CHAIN)
    async with running(server) as bench:
        key = bench.isolator.own_key("one")
        first = await bench.pool.session(key, bench.servers[0])
        server.cut_all()
        await first.closed.wait()
        second = await bench.pool.session(key, bench.servers[0])
        assert not second.closed.is_set()


@pytest.mark.virtual_clock
async def test_the_bound_connection_unused_longest_goes_first() -> None:
    settings = replace(QUICK, max_bound=2)
    async with running(ElectrumServer(CHAIN), settings=settings) as bench:
        keys = [bench.isolator.own_key(str(n)) for n in range(3)]
        server, pool = bench.servers[0], bench.pool
        first = await pool.session(keys[0], server)
        second = await pool.session(keys[1], server)
        await asyncio.sleep(4)
        assert await pool.session(keys[0], server) is first
        await asyncio.sleep(4)
        third = await pool.session(keys[2], server)
        await until(second.closed.is_set)
        assert not first.closed.is_set()
        assert not third.closed.is_set()
        pool.forget(keys[0])
        assert first.closed.is_set()


async def test_a_server_that_breaks_the_protocol_is_a_liar() -> None:
    def nonsense(method: str, params: list[object], result: object) -> object:
        return 7

    async with running(ElectrumServer(CHAIN, nonsense), ElectrumServer(CHAIN)) as bench:
        scores = bench.pool.scores
        await until(lambda: scores.of(bench.servers[0]).lies >= 1)
        await asyncio.sleep(0.2)
        assert scores.of(bench.servers[0]).lies <= QUICK.clean
        assert scores.choose(asyncio.get_running_loop().time())[0] is bench.servers[1]


@pytest.mark.virtual_clock
async def test_every_connection_is_pinged_before_servers_drop_it() -> None:
    server = ElectrumServer(CHAIN)
    async with running(server, settings=PoolSettings(clean=3)) as bench:
        await bench.pool.session(bench.isolator.own_key("one"), bench.servers[0])
        await asyncio.sleep(199)
        assert not [1 for method, _ in server.requests if method == "server.ping"]
        await asyncio.sleep(600)  # the last are opened a random while after the first
        pings = [1 for method, _ in server.requests if method == "server.ping"]
        assert len(pings) >= 4
        assert server.connections == 4


@pytest.mark.virtual_clock
async def test_the_times_of_pings_are_random_and_on_no_grid() -> None:
    clock = asyncio.get_running_loop().time
    times: list[float] = []

    def noted(method: str, params: list[object], result: object) -> object:
        if method == "server.ping":
            times.append(clock())
        return result

    async with running(ElectrumServer(CHAIN, noted), settings=PoolSettings(clean=1)):
        await asyncio.sleep(26 * 451)
    gaps = [later - before for before, later in pairwise(times)]
    assert 199.0 < min(gaps) < 325.0 < max(gaps) < 451.0
    # connections pinged on one grid would show a server that they are of one client
    assert len({round(gap, 1) for gap in gaps}) > 20


@pytest.mark.virtual_clock
async def test_connections_to_one_server_are_not_opened_together() -> None:
    """The keys that take them would be known to be of one client."""
    clock = asyncio.get_running_loop().time
    times: list[float] = []

    def noted(method: str, params: list[object], result: object) -> object:
        if method == "server.version":
            times.append(clock())
        return result

    async with running(ElectrumServer(CHAIN, noted), settings=PoolSettings(clean=4)) as bench:
        for _ in range(2):
            times.clear()
            await asyncio.sleep(600)
            assert len(times) == 4
            assert min(later - before for before, later in pairwise(times)) > 0.0
            bench.isolator.new_epoch()


@pytest.mark.virtual_clock
async def test_after_a_new_epoch_connections_are_opened_a_random_while_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ElectrumServer(CHAIN)
    async with running(server, settings=PoolSettings(clean=2, refill_after=30)) as bench:
        await asyncio.sleep(900)
        waits = iter((1.0, 2.0))
        monkeypatch.setattr("random.expovariate", lambda rate: next(waits))
        bench.isolator.new_epoch()
        for seconds, connections in ((29, 2), (2, 3), (28, 3), (2, 4), (100, 4)):
            await asyncio.sleep(seconds)
            assert server.connections == connections


@pytest.mark.virtual_clock
async def test_what_a_key_has_taken_is_replaced_a_random_while_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ElectrumServer(CHAIN)
    async with running(server, settings=PoolSettings(clean=2, refill_after=30)) as bench:
        await asyncio.sleep(900)
        waits = iter((1.0, 2.0))
        monkeypatch.setattr("random.expovariate", lambda rate: next(waits))
        for name in ("one", "other"):
            await bench.pool.session(bench.isolator.own_key(name), bench.servers[0])
        for seconds, connections in ((29, 2), (2, 3), (28, 3), (2, 4), (100, 4)):
            await asyncio.sleep(seconds)
            assert server.connections == connections


@pytest.mark.virtual_clock
async def test_a_bound_connection_that_nobody_uses_is_closed() -> None:
    async with running(ElectrumServer(CHAIN), settings=PoolSettings()) as bench:
        session = await bench.pool.session(bench.isolator.own_key("one"), bench.servers[0])
        await asyncio.sleep(800)
        assert not session.closed.is_set()
        await asyncio.sleep(200)
        assert session.closed.is_set()
        assert bench.pool.counts()[1] == 0


@pytest.mark.virtual_clock
async def test_connections_of_different_keys_do_not_end_together() -> None:
    """Else the server learns that they are of one client: from the hour at which they are
    found unused, or from the newcomer that takes their place."""
    settings = PoolSettings(max_bound=20, clean=0)
    async with running(ElectrumServer(CHAIN), settings=settings) as bench:
        clock = asyncio.get_running_loop().time
        times: list[float] = []

        async def note_end(number: int) -> None:
            key = bench.isolator.own_key(str(number))
            session = await bench.pool.session(key, bench.servers[0])
            times.append(clock())
            await session.closed.wait()
            times.append(clock())

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(note_end(number))
                await asyncio.sleep(7)
    assert len(times) == 80
    assert min(later - before for before, later in pairwise(sorted(times))) > 0


async def test_a_closed_pool_fails_waiting_look_ups() -> None:
    async with running(ElectrumServer(CHAIN), settings=replace(QUICK, clean=0)) as bench:
        bench.dialer.ports[bench.servers[0].label] = 1
        asking = asyncio.create_task(
            bench.pool.session(bench.isolator.own_key("x"), bench.servers[0])
        )
        await asyncio.sleep(0)
        await bench.pool.close()
        with pytest.raises(DialError):
            await asking
        with pytest.raises(DialError):
            await bench.pool.session(bench.isolator.own_key("y"), bench.servers[0])
