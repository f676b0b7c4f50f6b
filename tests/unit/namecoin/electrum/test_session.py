from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from typing import Any, cast

import pytest

from isoproxy.errors import DialError, ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, ChainParams
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.session import (
    LOOKUP_LINE,
    LOOKUP_RATE,
    MAX_TIPS,
    READ_SIZE,
    ElectrumSession,
    ServerRefused,
    WrongNetwork,
    abandon,
)
from isoproxy.namecoin.electrum.wire import MAX_OUTSTANDING, Notification
from tests.kit.electrum_server import Cut, ElectrumServer, Fault, Lie, Silence
from tests.kit.garbage import no_collector
from tests.kit.memory_net import MemoryNet
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


class Noting:
    """The writer of a connection, with all that was said over it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data
        self._writer.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


async def test_every_connection_says_the_same_byte_for_byte() -> None:
    """No number goes on from one to the next, and no name is this client's alone."""
    said = []
    async with ElectrumServer(CHAIN) as server:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            noting = Noting(writer)
            session = await ElectrumSession.start(
                reader, cast(asyncio.StreamWriter, noting), REGTEST
            )
            session.ping()
            await session.call("blockchain.scripthash.get_history", "00" * 32)
            await ended(session)
            said.append(noting.said.splitlines())
    assert said[0] == said[1]
    assert said[0] == [
        b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["4.0.6",["1.4","1.4.3"]]}',
        b'{"jsonrpc":"2.0","id":2,"method":"server.features","params":[]}',
        b'{"jsonrpc":"2.0","id":3,"method":"blockchain.headers.subscribe","params":[]}',
        b'{"jsonrpc":"2.0","id":4,"method":"server.ping","params":[]}',
        b'{"jsonrpc":"2.0","id":5,"method":"blockchain.scripthash.get_history",'
        b'"params":["%b"]}' % (b"00" * 32),
    ]


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
        abandon([stuck])
        await asyncio.sleep(0)
        assert not session._waiting
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


TIP = b'{"method":"blockchain.headers.subscribe","params":[{"height":9,"hex":"%s"}]}' % (b"00" * 80)


async def in_memory() -> tuple[ElectrumSession, asyncio.StreamReader]:
    """A session, and where to put what its server says."""
    label = parse_server("a.example:1:t")
    net = MemoryNet({label.label: ElectrumServer(CHAIN)})
    reader, writer = await net.open(None, label)
    return await ElectrumSession.start(reader, writer, REGTEST), reader


@pytest.mark.virtual_clock(grace_s=0)
async def test_a_server_that_announces_blocks_without_end_is_cut_off() -> None:
    session, reader = await in_memory()
    reader.feed_data((TIP + b"\n") * MAX_TIPS)
    await asyncio.sleep(1)
    assert not session.closed.is_set()
    for _ in range(100):
        await asyncio.sleep(600)  # a block each ten minutes is what there is
        reader.feed_data(TIP + b"\n")
    await asyncio.sleep(1)
    assert not session.closed.is_set()
    reader.feed_data((TIP + b"\n") * (MAX_TIPS + 2))
    await asyncio.sleep(1)
    assert session.closed.is_set()


@pytest.mark.virtual_clock(grace_s=0)
async def test_of_what_is_announced_the_last_is_kept_and_nothing_else() -> None:
    session, reader = await in_memory()
    for height in range(200):
        reader.feed_data(TIP.replace(b"9", b"%d" % height, 1) + b"\n")
        await asyncio.sleep(60)
    gc.collect()
    kept = [thing for thing in gc.get_objects() if isinstance(thing, Notification | TipClaim)]
    assert len(kept) <= 1
    assert session.claimed_height == 199
    await ended(session)


@pytest.mark.virtual_clock(grace_s=0)
async def test_what_comes_faster_than_the_rate_is_read_later() -> None:
    session, reader = await in_memory()
    clock = asyncio.get_running_loop().time
    began = clock()
    reader.feed_data(TIP[:-2] + b" " * 4_000_000 + TIP[-2:] + b"\n")
    answer = session.request("server.ping")
    await answer
    assert clock() - began > 0.9 * (4_000_000 - 2 * LOOKUP_LINE) / LOOKUP_RATE
    await ended(session)


@pytest.mark.virtual_clock(grace_s=0)
async def test_reading_gives_the_loop_its_turn() -> None:
    session, reader = await in_memory()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    reader.feed_data(TIP[:-2] + b" " * 900_000 + TIP[-2:] + b"\n")
    while session.claimed_height != 9:  # noqa: ASYNC110  every turn is counted
        await asyncio.sleep(0)
    assert turns >= 900_000 // READ_SIZE
    counting.cancel()
    await ended(session)


@pytest.mark.virtual_clock(grace_s=0)
async def test_it_ends_when_no_look_up_uses_it_any_more() -> None:
    session, _ = await in_memory()
    told: list[bool] = []
    session.on_closed = lambda: told.append(True)
    with session.in_use():
        with session.in_use():
            session.end()
            assert not session.is_usable
        assert not session.closed.is_set()
    assert session.closed.is_set()
    await session.wait_closed()
    session.end()
    assert told == [True]


@pytest.mark.virtual_clock(grace_s=0)
async def test_how_long_the_handshake_took_is_known() -> None:
    label = parse_server("a.example:1:t")
    net = MemoryNet({label.label: ElectrumServer(CHAIN, delay=0.2)}, delay=lambda: 0.4)
    reader, writer = await net.open(None, label)
    session = await ElectrumSession.start(reader, writer, REGTEST)
    assert session.round_trip == pytest.approx(1.0)
    await ended(session)
