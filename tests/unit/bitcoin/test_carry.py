"""Flows on sockets, their endings, and the fallback that must never surprise."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.carry import Carrier, CarrySettings
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Flow, TransportType, V1Reason
from isoproxy.bitcoin.flows import FlowRegistry, Outcome
from isoproxy.bitcoin.known_peers import PeerMemory, Spoken
from isoproxy.bitcoin.messages import MAINNET, SIGNET, padded
from isoproxy.bitcoin.options import Deadlines, Fallback, TransportOptions
from isoproxy.bitcoin.translator import Translator
from isoproxy.bitcoin.v1 import VERSION, VersionRewrite, encode
from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import P2P, IsolationKey, Isolator, Purpose
from isoproxy.net.target import Target
from tests.kit.garbage import no_collector
from tests.kit.relaying import relay_stream
from tests.kit.waiting import until
from tests.unit.bitcoin.ends import (
    V1End,
    V2End,
    key,
    narrow_tcp_pair,
    pair,
    receive,
    receive_exactly,
    send,
    speak_then_read,
)
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, short, v1
from tests.unit.bitcoin.test_v1 import version_payload

ONION = Target.parse("a" * 56 + ".onion", 8333)
CLEARNET = Target.parse("peer.example", 8333)


class Dialling:
    """Stands for the dialer through Tor: hands out what `dial` opens, and notes for whom."""

    def __init__(self, dial: Callable[[], Awaitable[socket.socket]]) -> None:
        self._dial = dial
        self.asked: list[tuple[IsolationKey, Purpose, Target, bytes]] = []

    async def connect(
        self, key: IsolationKey, purpose: Purpose, target: Target, *, client: bytes = b""
    ) -> socket.socket:
        self.asked.append((key, purpose, target, client))
        return await self._dial()


class World:
    """A flow under way, and both far ends."""

    def __init__(
        self,
        *,
        first: bytes = HELLO,
        target: Target = ONION,
        fallback: Fallback = Fallback.ONION_ONLY,
        options: TransportOptions | None = None,
        dial: Callable[[], Awaitable[socket.socket]] | None = None,
        peer: tuple[socket.socket, socket.socket] | None = None,
        client: tuple[socket.socket, socket.socket] | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.client, near_client = client or pair()
        self.peer, near_peer = peer or pair()
        self.isolator = Isolator()
        self.key = key(isolator=self.isolator)
        self.flow = Flow(self.key, target)
        self.known = PeerMemory(time.monotonic)
        self.registry = FlowRegistry()
        self.near = [near_client, near_peer]
        self.second: socket.socket | None = None
        self.dials = 0
        self._dialled = asyncio.Event()
        self.dialer = Dialling(dial or self.dial)
        settings = CarrySettings(fallback, options or TransportOptions(), deadlines or Deadlines())
        self.carrier = Carrier(self.dialer, relay_stream, self.registry, self.known, settings)
        self.task = asyncio.create_task(
            self.carrier.carry(near_client, first, near_peer, self.flow, b"client")
        )

    async def dial(self) -> socket.socket:
        self.dials += 1
        self.second, near = pair()
        self.near.append(near)
        self._dialled.set()
        return near

    async def fallback(self) -> socket.socket:
        """The far end of the second stream, once it is there."""
        await self._dialled.wait()
        assert self.second is not None
        return self.second

    async def ending(self) -> Ending:
        """How it ended; every socket must be closed then."""
        try:
            await self.task
        finally:
            for sock in (self.client, self.peer, self.second):
                if sock is not None:
                    sock.close()
        assert all(sock.fileno() == -1 for sock in self.near)
        assert self.flow.ended is not None
        return self.flow.ended

    async def relayed(self) -> bytes:
        """What the peer of an untouched stream has got, once the client has ended."""
        self.client.shutdown(socket.SHUT_WR)
        got = b""
        while data := await receive(self.peer):
            got += data
        assert await self.ending() is Ending.HANDED_ON
        assert self.flow.transport is TransportType.UNTOUCHED
        assert self.flow.closed_by is ClosedBy.CLIENT
        return got


async def no_dial() -> socket.socket:
    """For flows that must not open a second stream, which would be in plaintext."""
    pytest.fail("a second stream was opened")


async def established(**settings: object) -> tuple[World, V1End, V2End]:
    world = World(**settings)  # type: ignore[arg-type]  # passed on as they are
    peer = V2End(world.peer)
    await peer.shake()
    assert await peer.contents() == LONG_VERSION
    return world, V1End(world.client), peer


async def test_messages_flow_both_ways_and_the_session_is_shown() -> None:
    world, client, peer = await established()
    await peer.send(short("ping", bytes(8)))
    assert await client.message() == (padded("ping"), bytes(8))
    await send(world.client, v1("pong", bytes(8)))
    assert await peer.contents() == short("pong", bytes(8))
    assert world.flow.transport is TransportType.V2
    assert peer.transport.session_id is not None
    assert world.flow.session_id == peer.transport.session_id.hex()
    assert world.known.has(world.key, ONION) is Spoken.V2
    world.client.close()
    assert await world.ending() is Ending.CLIENT_CLOSED
    assert world.dials == 0


async def end_a_flow(shakes_hands: bool) -> None:
    world = World(fallback=Fallback.NEVER, dial=no_dial)  # `world.dial` would be a cycle
    if shakes_hands:
        await V2End(world.peer).shake()
    state = TransportType.V2 if shakes_hands else TransportType.DETECTING
    await until(lambda: world.flow.translator and world.flow.transport is state)
    assert buffers() > 0
    world.peer.close()
    await world.ending()


def buffers() -> int:
    return sum(isinstance(item, ByteQueue) for item in gc.get_objects())


@pytest.mark.parametrize("shakes_hands", [True, False])
async def test_a_flows_buffers_go_with_it(shakes_hands: bool) -> None:
    """Without the garbage collector, which comes late, and lets many ended flows add up."""
    with no_collector():
        before = buffers()
        await end_a_flow(shakes_hands)
        await asyncio.sleep(0)
        assert buffers() == before


async def test_what_came_before_the_end_is_delivered() -> None:
    world, client, peer = await established()
    await peer.send(short("tx", bytes(100_000)))
    world.peer.shutdown(socket.SHUT_WR)
    assert await client.message() == (padded("tx"), bytes(100_000))
    with pytest.raises(EOFError):
        await client.message()
    assert await world.ending() is Ending.PEER_CLOSED


async def test_a_slow_reader_stops_the_other_side_and_loses_nothing() -> None:
    world, client, peer = await established()
    block = bytes(range(256)) * 4000
    sending = asyncio.create_task(send(world.peer, peer.transport.seal(short("block", block)) * 1))
    await sending
    more = b"".join(peer.transport.seal(short("tx", bytes([n]) * 50_000)) for n in range(100))
    sending = asyncio.create_task(send(world.peer, more))
    await asyncio.sleep(0.05)
    assert not sending.done()
    translator = world.flow.translator
    assert translator is not None
    assert len(translator.client.outbox.data) + len(translator.peer.inbox.data) < 6_000_000
    assert await client.message() == (padded("block"), block)
    for number in range(100):
        assert await client.message() == (padded("tx"), bytes([number]) * 50_000)
    await sending
    world.peer.close()
    await world.ending()


async def test_a_forged_packet_ends_both_sides_after_what_was_good() -> None:
    world, client, peer = await established()
    good = peer.transport.seal(short("ping", bytes(8)))
    forged = bytearray(peer.transport.seal(short("ping", bytes(8))))
    forged[-1] ^= 1
    await send(world.peer, good + bytes(forged))
    assert await client.message() == (padded("ping"), bytes(8))
    with pytest.raises(EOFError):
        await client.message()
    assert await world.ending() is Ending.PEER_BROKE_PROTOCOL


async def test_a_forged_packet_does_not_undo_what_the_version_packet_proved() -> None:
    world, peer = World(), TransportOptions().transport(MAINNET, initiator=False)
    output, _ = peer.receive(await receive(world.peer))
    forged = bytearray(peer.seal(short("ping", bytes(8))))
    forged[-1] ^= 1
    await send(world.peer, output + forged)
    assert await world.ending() is Ending.PEER_BROKE_PROTOCOL
    assert world.known.has(world.key, ONION) is Spoken.V2
    assert peer.session_id is not None
    assert (world.flow.transport, world.flow.session_id) == (
        TransportType.V2,
        peer.session_id.hex(),
    )


async def test_a_client_on_another_network_ends_both_sides() -> None:
    world, _, peer = await established()
    await send(world.client, b"\x00" * 24)
    with pytest.raises(EOFError):
        await peer.contents()
    assert await world.ending() is Ending.CLIENT_BROKE_PROTOCOL


async def test_endless_garbage_ends_it() -> None:
    world = World(fallback=Fallback.ALWAYS)
    await send(world.peer, bytes(64 + 4111))
    assert await world.ending() is Ending.PEER_BROKE_PROTOCOL
    assert world.dials == 0


async def test_a_v1_peer_that_closes_is_tried_again_by_the_same_dial() -> None:
    world = World()
    assert len(await receive(world.peer)) >= 64
    world.peer.close()
    peer, client = V1End(await world.fallback()), V1End(world.client)
    assert await peer.message() == (VERSION, version_payload())
    await send(peer.sock, v1("verack"))
    assert await client.message() == (padded("verack"), b"")
    assert (world.dials, world.flow.transport, world.flow.fell_back) == (1, TransportType.V1, True)
    assert world.flow.session_id == ""
    assert world.dialer.asked == [(world.flow.key, P2P, ONION, b"client")]
    peer.sock.close()
    assert await world.ending() is Ending.HANDED_ON
    assert world.registry.totals().outcomes == {Outcome.V1_FALLBACK: 1}
    (end,) = world.registry.totals().ends
    assert (end.reason, end.closed_by) == (V1Reason.PEER_CLOSED, ClosedBy.PEER)


async def test_scrubbing_holds_for_a_fallback_too() -> None:
    rewrite = VersionRewrite(scrub=True)
    world = World(options=TransportOptions(version=rewrite))
    await receive(world.peer)
    world.peer.close()
    second = await world.fallback()
    assert await V1End(second).message() == (VERSION, rewrite.apply(version_payload()))
    second.close()
    await world.ending()


@pytest.mark.parametrize("known", [Spoken.NOTHING, Spoken.V2])
async def test_a_peer_that_may_speak_v1_gets_less_than_ten_headers_that_it_cannot_read(
    known: Spoken,
) -> None:
    world = World(options=TransportOptions(garbage=(4000, 4000)))
    if known is Spoken.V2:
        world.known.note(world.key, ONION, known)
    opening = await receive(world.peer)
    while known is Spoken.V2 and len(opening) < 64 + 4000:
        opening += await receive(world.peer)
    assert len(opening) == (64 + 4000 if known is Spoken.V2 else 10 * 24 - 1)
    world.peer.close()
    world.client.close()
    await world.ending()


@pytest.mark.virtual_clock
async def test_a_silent_peer_is_tried_again_before_its_client_gives_up() -> None:
    world = World(target=CLEARNET, fallback=Fallback.ALWAYS)
    loop = asyncio.get_running_loop()
    second = await world.fallback()
    assert 8 <= loop.time() < 10
    assert await loop.sock_recv(second, 4096) == HELLO
    world.client.close()
    await world.ending()


@pytest.mark.virtual_clock
async def test_a_silent_peer_has_a_minute_where_nothing_else_may_be_tried() -> None:
    world = World(target=CLEARNET, fallback=Fallback.NEVER, dial=no_dial)
    assert await world.ending() is Ending.V2_REQUIRED
    assert 60 <= asyncio.get_running_loop().time() < 75


@pytest.mark.parametrize(
    ("target", "fallback"),
    [
        (ONION, Fallback.NEVER),
        (CLEARNET, Fallback.NEVER),
        (CLEARNET, Fallback.ONION_ONLY),
        (Target.parse("a" * 56 + ".onion.example", 8333), Fallback.ONION_ONLY),
    ],
)
async def test_no_fallback_where_it_is_not_allowed(target: Target, fallback: Fallback) -> None:
    world = World(target=target, fallback=fallback, dial=no_dial)
    await receive(world.peer)
    world.peer.close()
    assert await world.ending() is Ending.V2_REQUIRED


async def test_never_is_never_in_plaintext() -> None:
    world = World(fallback=Fallback.NEVER, dial=no_dial)
    await send(world.client, v1("ping", b"12345678") * 100)
    seen = await receive(world.peer)
    world.peer.shutdown(socket.SHUT_WR)
    while data := await receive(world.peer):
        seen += data
    await world.ending()
    assert 64 <= len(seen) <= 64 + 4094
    for secret in (b"version", b"ping", b"12345678", MAINNET.magic, version_payload()[20:72]):
        assert secret not in seen


async def test_one_byte_received_forbids_a_fallback() -> None:
    world = World(fallback=Fallback.ALWAYS, dial=no_dial)
    await receive(world.peer)
    await send(world.peer, b"x")
    world.peer.close()
    assert await world.ending() is Ending.PEER_CLOSED


@pytest.mark.parametrize("piece", [1, 16, 1000])
async def test_a_peer_that_answers_in_v1_is_tried_again_at_once(piece: int) -> None:
    world = World()
    await receive(world.peer)
    for start in range(0, len(HELLO), piece):
        with contextlib.suppress(BrokenPipeError):
            await send(world.peer, HELLO[start : start + piece])
    second = await world.fallback()
    assert await V1End(second).message() == (VERSION, version_payload())
    assert world.flow.v1_reason is V1Reason.PEER_SPEAKS_V1
    assert await receive(world.peer) == b""
    second.close()
    await world.ending()


@pytest.mark.parametrize("fallback", [Fallback.NEVER, Fallback.ONION_ONLY])
async def test_a_peer_that_answers_in_v1_gets_no_plaintext_where_that_is_not_allowed(
    fallback: Fallback,
) -> None:
    world = World(target=CLEARNET, fallback=fallback, dial=no_dial)
    await receive(world.peer)
    await send(world.peer, HELLO)
    assert await world.ending() is Ending.V2_REQUIRED
    assert world.flow.v1_reason is V1Reason.PEER_SPEAKS_V1


async def test_a_peer_that_spoke_v1_before_the_client_goes_on_in_v1() -> None:
    """Nothing was said to it: the same stream will do."""
    world = World(first=b"", dial=no_dial)
    await send(world.peer, HELLO)
    client, peer = V1End(world.client), V1End(world.peer)
    assert await client.message() == (VERSION, version_payload())
    await send(world.client, HELLO)
    assert await peer.message() == (VERSION, version_payload())
    assert world.flow.transport is TransportType.V1
    world.client.close()
    await world.ending()


@pytest.mark.parametrize("said", [HELLO[:15], v1("verack"), encode(SIGNET, VERSION, bytes(86))])
async def test_only_a_version_header_makes_a_peer_a_v1_peer(said: bytes) -> None:
    world = World(first=b"", fallback=Fallback.ALWAYS, dial=no_dial)
    await send(world.peer, said)
    await receive(world.client)
    await send(world.client, HELLO)
    ended = asyncio.ensure_future(world.ending())
    await asyncio.wait([ended], timeout=5)
    assert ended.done(), "it is still taken for a peer that speaks v1"
    assert ended.result() is Ending.V2_REQUIRED

    world = World(fallback=Fallback.ALWAYS, dial=no_dial)
    await receive(world.peer)
    await send(world.peer, said)
    world.peer.shutdown(socket.SHUT_WR)
    assert await world.ending() is Ending.PEER_CLOSED


async def again(world: World, key_of: IsolationKey) -> tuple[socket.socket, asyncio.Task[object]]:
    """Another flow to the same peer: its far end."""
    (client, near_client), (peer, near_peer) = pair(), pair()
    flow = Flow(key_of, ONION)
    task = asyncio.create_task(world.carrier.carry(near_client, HELLO, near_peer, flow, b""))
    task.add_done_callback(lambda _: client.close())
    return peer, task


async def test_a_v1_peer_is_not_troubled_again_under_the_same_key() -> None:
    world = World()
    await receive(world.peer)
    world.peer.close()
    (await world.fallback()).close()
    await world.ending()
    peer, task = await again(world, world.key)
    assert await receive(peer) == HELLO
    peer.close()
    await task
    peer, task = await again(world, key(b"another", world.isolator))
    assert len(await receive(peer)) >= 64
    peer.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.virtual_clock
@pytest.mark.parametrize(("waited", "speaks_v1"), [(0.5, False), (7, True)])
async def test_a_silent_peer_whose_client_gave_up_is_met_in_v1(
    waited: float, speaks_v1: bool
) -> None:
    world = World()
    loop = asyncio.get_running_loop()
    await loop.sock_recv(world.peer, 4096)
    await asyncio.sleep(waited)
    world.client.close()
    assert await world.ending() is Ending.CLIENT_CLOSED
    peer, task = await again(world, world.key)
    assert (await loop.sock_recv(peer, 4096) == HELLO) is speaks_v1
    peer.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("proven", [False, True])
async def test_what_is_remembered_of_v1_is_no_way_around_the_policy(proven: bool) -> None:
    world = World(dial=no_dial, fallback=Fallback.ALWAYS if proven else Fallback.NEVER)
    await receive(world.peer)
    await send(world.peer, HELLO)
    if proven:
        world.known.note(world.key, ONION, Spoken.V2)
    assert await world.ending() is Ending.V2_REQUIRED
    peer, task = await again(world, world.key)
    opening = await receive(peer)
    assert len(opening) >= 64
    assert MAINNET.magic not in opening
    peer.close()
    await task


async def test_a_peer_proven_v2_that_answers_in_v1_gets_no_plaintext() -> None:
    world = World(fallback=Fallback.ALWAYS, dial=no_dial)
    world.known.note(world.key, ONION, Spoken.V2)
    await receive(world.peer)
    await send(world.peer, HELLO)
    assert await world.ending() is Ending.V2_REQUIRED


async def test_a_peer_proven_v2_is_never_spoken_to_in_plaintext() -> None:
    world = World(fallback=Fallback.ALWAYS, dial=no_dial)
    world.known.note(world.key, ONION, Spoken.V2)
    await receive(world.peer)
    world.peer.close()
    assert await world.ending() is Ending.V2_REQUIRED


async def test_a_peer_that_left_before_a_byte_reached_it_is_not_dialled_again() -> None:
    world = World(dial=no_dial)
    world.peer.close()
    assert await world.ending() is Ending.PEER_CLOSED
    assert not world.flow.fell_back


async def test_a_client_that_left_is_not_dialled_for() -> None:
    world = World(fallback=Fallback.ALWAYS)
    world.client.close()
    assert await world.ending() is Ending.CLIENT_CLOSED
    assert world.dials == 0


async def test_a_second_dial_that_fails_is_told() -> None:
    async def refuse() -> socket.socket:
        raise DialError(kind=ErrorKind.CONNECTION_REFUSED)

    world = World(dial=refuse)
    await receive(world.peer)
    world.peer.close()
    assert await world.ending() is Ending.DIAL_FAILED
    assert world.flow.dial_error is ErrorKind.CONNECTION_REFUSED


@pytest.mark.virtual_clock
@pytest.mark.parametrize("answer", [b"x", bytes(100), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_that_never_finishes_the_handshake(answer: bytes) -> None:
    world = World(fallback=Fallback.ALWAYS)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(world.peer, answer)
    assert await world.ending() is Ending.HANDSHAKE_TIMEOUT
    assert 60 <= loop.time() < 75
    assert world.dials == 0


@pytest.mark.virtual_clock
async def test_idle_for_twenty_minutes() -> None:
    world, _, _ = await established()
    began = asyncio.get_running_loop().time()
    assert await world.ending() is Ending.IDLE
    assert 1200 <= asyncio.get_running_loop().time() - began < 1215


@pytest.mark.virtual_clock
async def test_memory_is_given_back_when_nothing_happens() -> None:
    world, client, peer = await established()
    await peer.send(short("block", bytes(500_000)))
    await client.message()
    await asyncio.sleep(90)
    translator = world.flow.translator
    assert translator is not None
    assert len(translator.peer.inbox.data) + len(translator.client.outbox.data) < 200_000
    world.client.close()
    await world.ending()


async def test_cancelling_closes_everything() -> None:
    world, _, _ = await established()
    world.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await world.task
    assert all(sock.fileno() == -1 for sock in world.near)
    world.client.close()
    world.peer.close()


async def test_a_defect_ends_the_flow_and_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Translator, *arguments: object) -> None:
        raise ZeroDivisionError

    world, _, _ = await established()
    monkeypatch.setattr(Translator, "received", broken)
    await send(world.client, b"x")
    with pytest.raises(ZeroDivisionError):
        await world.task
    assert all(sock.fileno() == -1 for sock in world.near)
    world.client.close()
    world.peer.close()


async def test_a_hostile_flow_disturbs_no_other() -> None:
    good, client, peer = await established()
    for data in (bytes(64), b"\xff" * 5000, b"x"):
        bad = World(fallback=Fallback.NEVER)
        await send(bad.peer, data)
        bad.peer.shutdown(socket.SHUT_WR)
        assert await bad.ending() in {Ending.PEER_CLOSED, Ending.PEER_BROKE_PROTOCOL}
        await peer.send(short("ping", bytes(8)))
        assert await client.message() == (padded("ping"), bytes(8))
    good.client.close()
    await good.ending()


async def test_a_v2_peer_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    far, near = narrow_tcp_pair()
    world = World(peer=(far, near), dial=no_dial)
    peer = V2End(far)
    await peer.shake()
    assert await peer.contents() == LONG_VERSION
    await send(world.client, v1("block", bytes(400_000)))
    world.client.close()
    _, contents = peer.transport.receive(await speak_then_read(far))
    assert contents == [short("block", bytes(400_000))]
    await world.ending()


async def test_a_client_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    far, near = narrow_tcp_pair()
    world = World(client=(far, near))
    peer = V2End(world.peer)
    await peer.shake()
    assert await peer.contents() == LONG_VERSION
    await peer.send(short("block", bytes(400_000)))
    world.peer.close()
    assert await speak_then_read(far) == v1("block", bytes(400_000))
    assert await world.ending() is Ending.PEER_CLOSED


async def test_what_is_not_v1_is_relayed_whole_and_shown() -> None:
    world = World(first=b"SSH-")
    await send(world.client, b"2.0")
    assert await receive_exactly(world.peer, 7) == b"SSH-2.0"
    assert world.registry.flows == {world.flow}
    assert await world.relayed() == b""
    assert world.flow.bytes_up == 7
    assert world.registry.totals().outcomes == {Outcome.UNTOUCHED: 1}

    world = World(first=b"")
    await send(world.client, b"\x16\x03\x01" + bytes(100))
    assert await world.relayed() == b"\x16\x03\x01" + bytes(100)


async def test_a_peer_that_speaks_first_is_not_waited_with() -> None:
    world = World(first=b"")
    await send(world.peer, b"220 hello\r\n")
    assert await receive(world.client) == b"220 hello\r\n"
    await send(world.client, b"EHLO there\r\n")
    assert await world.relayed() == b"EHLO there\r\n"
    assert (world.flow.bytes_up, world.flow.bytes_down) == (12, 11)


async def test_a_client_that_only_listens_may_say_so() -> None:
    world = World(first=b"")
    world.client.shutdown(socket.SHUT_WR)
    assert await world.relayed() == b""


@pytest.mark.parametrize("fallback", list(Fallback))
async def test_v1_after_a_peer_of_another_protocol_spoke_goes_nowhere(fallback: Fallback) -> None:
    world = World(first=b"", fallback=fallback, dial=no_dial)
    await send(world.peer, b"220 hello\r\n")
    await receive(world.client)
    await send(world.client, HELLO)
    assert await receive(world.peer) == b""
    assert await world.ending() is Ending.V2_REQUIRED


def test_a_flow_prints_nothing() -> None:
    assert "onion" not in repr(Flow(key(), ONION))


def test_hello_is_what_clients_send() -> None:
    assert encode(MAINNET, VERSION, version_payload()) == HELLO
