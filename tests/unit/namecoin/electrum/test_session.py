from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from typing import Any

import pytest

from isoproxy.errors import DialError, ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, ChainParams
from isoproxy.namecoin.electrum.session import (
    ElectrumSession,
    ServerRefused,
    WrongNetwork,
    abandon,
)
from isoproxy.namecoin.electrum.wire import MAX_OUTSTANDING
from tests.kit.electrum_server import Cut, ElectrumServer, Fault, Lie, Silence
from tests.kit.garbage import no_collector
from tests.kit.namecoin.chain import RECORDED_TIP, RegtestChain

CHAIN = RegtestChain.recorded()


async def opened(
    server: ElectrumServer,
    network: ChainParams = REGTEST,
    *,
    max_line: int = 1_000_000,
    timeout: float = 5.0,
) -> ElectrumSession:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    return await ElectrumSession.start(reader, writer, network, max_line=max_line, timeout=timeout)


async def ended(session: ElectrumSession) -> None:
    session.close()
    await session.wait_closed()


def instead(method: str, reply: Any) -> Lie:
    """Answer `method` with `reply`, or raise it."""

    def lie(asked: str, params: list[Any], result: Any) -> Any:
        if asked != method:
            return result
        if isinstance(reply, BaseException):
            raise reply
        return reply

    return lie


async def test_an_ended_session_is_gone_without_the_garbage_collector() -> None:
    async with ElectrumServer(CHAIN) as server:
        with no_collector():
            session = await opened(server)
            gone = weakref.ref(session)
            await ended(session)
            del session
            await asyncio.sleep(0)
            assert gone() is None


async def test_an_answer_is_not_kept_when_its_asker_is_done_with_it() -> None:
    """A connection that nobody uses for a while would hold on to its last one."""
    size = 200_000
    async with ElectrumServer(CHAIN, instead("server.ping", "x" * size)) as server:
        session = await opened(server)
        await session.call("server.ping")
        gc.collect()
        tracemalloc.start()
        await session.call("server.ping")
        await asyncio.sleep(0)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < size // 2
        await ended(session)


async def test_the_handshake_is_one_round_trip() -> None:
    async with ElectrumServer(CHAIN, delay=0.5) as server:
        began = asyncio.get_running_loop().time()
        session = await opened(server)
        took = asyncio.get_running_loop().time() - began
        assert took < 1.0
        assert session.protocol == (1, 4, 3)
        assert session.offers_value_proof
        assert session.claimed_height == RECORDED_TIP
        assert [method for method, _ in server.requests] == [
            "server.version",
            "server.features",
            "blockchain.headers.subscribe",
        ]
        await ended(session)


@pytest.mark.parametrize("protocol", ["1.4", "1.4.2"])
async def test_older_servers_offer_no_value_proof(protocol: str) -> None:
    async with ElectrumServer(CHAIN, protocol=protocol) as server:
        session = await opened(server)
        assert not session.offers_value_proof
        await ended(session)


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (instead("server.version", ["x", "1.6"]), RemoteProtocolError),
        (instead("server.version", ["x", "1.3"]), RemoteProtocolError),
        (instead("server.version", ["x", "one"]), RemoteProtocolError),
        (instead("server.version", "x"), RemoteProtocolError),
        (instead("server.version", Fault(1)), ServerRefused),
        (instead("server.features", {"genesis_hash": "00" * 32}), WrongNetwork),
        (instead("server.features", {}), RemoteProtocolError),
        (instead("blockchain.headers.subscribe", {"height": 1}), RemoteProtocolError),
        (instead("server.features", Cut()), DialError),
    ],
)
async def test_a_server_of_no_use_is_refused(lie: Lie, expected: type[IsoproxyError]) -> None:
    async with ElectrumServer(CHAIN, lie) as server:
        with pytest.raises(expected):
            await opened(server)


async def test_another_network_is_noticed() -> None:
    async with ElectrumServer(CHAIN) as server:
        with pytest.raises(WrongNetwork):
            await opened(server, MAINNET)


async def test_a_silent_server_times_out() -> None:
    async with ElectrumServer(CHAIN, instead("server.features", Silence())) as server:
        with pytest.raises(DialError) as failed:
            await opened(server, timeout=0.1)
        assert failed.value.kind is ErrorKind.TTL_EXPIRED


async def test_requests_do_not_wait_for_each_other() -> None:
    held = instead("blockchain.block.header", Silence())
    async with ElectrumServer(CHAIN, held) as server:
        session = await opened(server)
        stuck = session.request("blockchain.block.header", 5)
        pings = [session.request("server.ping") for _ in range(20)]
        async with asyncio.timeout(30):
            assert await asyncio.gather(*pings) == [None] * 20
        busy = [session.busy]
        abandon([stuck])
        await asyncio.sleep(0)
        assert [*busy, session.busy] == [True, False]
        await ended(session)


async def test_an_error_is_that_requests_alone_and_says_nothing_of_it() -> None:
    async with ElectrumServer(CHAIN) as server:
        session = await opened(server)
        with pytest.raises(ServerRefused) as refused:
            await session.call("blockchain.transaction.get", "00" * 32)
        assert refused.value.code == 2
        assert "00" not in str(refused.value)
        assert await session.call("server.ping") is None
        await ended(session)


async def test_new_blocks_are_noticed() -> None:
    chain = RegtestChain.recorded()
    async with ElectrumServer(chain) as server:
        session = await opened(server)
        noticed = asyncio.Event()
        session.on_tip = noticed.set
        chain.mine()
        server.announce()
        async with asyncio.timeout(30):
            await noticed.wait()
        assert session.claimed_height == RECORDED_TIP + 1
        await ended(session)


async def test_a_malformed_notification_ends_the_connection() -> None:
    chain = RegtestChain.recorded()
    async with ElectrumServer(chain) as server:
        session = await opened(server)
        server.lie = instead("blockchain.headers.subscribe", {"height": "x"})
        server.announce()
        with pytest.raises(RemoteProtocolError):
            await session.call("server.ping")
        assert session.closed.is_set()
        await ended(session)


@pytest.mark.parametrize("how", ["server", "client"])
async def test_when_the_connection_ends_every_request_fails(how: str) -> None:
    async with ElectrumServer(CHAIN, instead("server.ping", Silence())) as server:
        session = await opened(server)
        waiting = [session.request("server.ping") for _ in range(3)]
        if how == "server":
            server.cut_all()
        else:
            session.close()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, DialError)
        with pytest.raises(DialError):
            await session.call("server.ping")
        await ended(session)


async def test_an_oversized_answer_ends_the_connection() -> None:
    async with ElectrumServer(CHAIN, instead("server.ping", "x" * 50_000)) as server:
        session = await opened(server, max_line=20_000)
        with pytest.raises(RemoteProtocolError, match="too long"):
            await session.call("server.ping")
        await ended(session)
        session = await opened(server, max_line=20_000)
        session.allow_long_answers(100_000)
        assert await session.call("server.ping") == "x" * 50_000
        await ended(session)


async def test_a_server_that_leaves_everything_unanswered_is_given_up() -> None:
    """Also if nobody waits any more: a ping must not fail for it, nor another look-up."""
    async with ElectrumServer(CHAIN, instead("server.ping", Silence())) as server:
        session = await opened(server)
        for _ in range(MAX_OUTSTANDING):
            session.request("server.ping").cancel()
        assert not session.closed.is_set()
        session.ping()
        assert session.closed.is_set()
        with pytest.raises(DialError):
            await session.call("server.ping")
        await ended(session)


async def test_a_ping_that_is_never_answered_ends_the_connection_at_the_next() -> None:
    async with ElectrumServer(CHAIN, instead("server.ping", Silence())) as server:
        session = await opened(server)
        states = []
        for _ in range(2):
            session.ping()
            states.append(session.closed.is_set())
        assert states == [False, True]
        await ended(session)
