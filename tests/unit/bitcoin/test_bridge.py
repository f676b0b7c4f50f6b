"""The bridge on sockets: flows, endings, and the fallback that must never surprise."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable

import pytest

from isoproxy.bitcoin.bridge import BridgeSettings, Flow, ProvenV2, bridge, relay
from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.messages import MAINNET, padded
from isoproxy.bitcoin.options import Deadlines, Fallback, TransportOptions
from isoproxy.bitcoin.translator import Ending, Translator
from isoproxy.bitcoin.v1 import VERSION, VersionRewrite, encode
from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import Isolator
from isoproxy.net.target import Target
from tests.kit.garbage import no_collector
from tests.kit.waiting import until
from tests.unit.bitcoin.ends import (
    V1End,
    V2End,
    key,
    narrow_tcp_pair,
    pair,
    receive,
    send,
    speak_then_read,
)
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, short, v1
from tests.unit.bitcoin.test_v1 import version_payload

ONION = Target.parse("a" * 56 + ".onion", 8333)
CLEARNET = Target.parse("peer.example", 8333)


class World:
    """A bridge under way, and both far ends."""

    def __init__(
        self,
        *,
        first: bytes = HELLO,
        target: Target = ONION,
        fallback: Fallback = Fallback.ONION_ONLY,
        options: TransportOptions | None = None,
        dial: Callable[[], Awaitable[socket.socket]] | None = None,
    ) -> None:
        self.client, client = pair()
        self.peer, peer = pair()
        self.isolator = Isolator()
        self.flow = Flow(key(isolator=self.isolator), target, MAINNET)
        self.proven = ProvenV2()
        self.near = [client, peer]
        self.second: socket.socket | None = None
        self.dials = 0
        self._dialled = asyncio.Event()
        settings = BridgeSettings(fallback, options or TransportOptions(), Deadlines())
        self.task = asyncio.create_task(
            bridge(client, first, peer, dial or self.dial, self.flow, settings, self.proven)
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
            ending = await self.task
        finally:
            for sock in (self.client, self.peer, self.second):
                if sock is not None:
                    sock.close()
        assert self.flow.ended is ending
        assert all(sock.fileno() == -1 for sock in self.near)
        return ending


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
    assert world.flow.transport == "v2"
    assert peer.transport.session_id is not None
    assert world.flow.session_id == peer.transport.session_id.hex()
    assert world.proven.has(world.flow.key, ONION)
    world.client.close()
    assert await world.ending() is Ending.CLIENT_CLOSED
    assert world.dials == 0


async def end_a_flow(shakes_hands: bool) -> None:
    world = World(fallback=Fallback.NEVER)
    if shakes_hands:
        await V2End(world.peer).shake()
    state = "v2" if shakes_hands else "detecting"
    await until(lambda: world.flow.translator and world.flow.transport == state)
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
    assert world.proven.has(world.flow.key, ONION)
    assert peer.session_id is not None
    assert (world.flow.transport, world.flow.session_id) == ("v2", peer.session_id.hex())


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
    assert (world.dials, world.flow.transport, world.flow.fell_back) == (1, "v1", True)
    assert world.flow.session_id == ""
    peer.sock.close()
    assert await world.ending() is Ending.PEER_CLOSED


async def test_scrubbing_holds_for_a_fallback_too() -> None:
    rewrite = VersionRewrite(scrub=True)
    world = World(options=TransportOptions(version=rewrite))
    await receive(world.peer)
    world.peer.close()
    second = await world.fallback()
    assert await V1End(second).message() == (VERSION, rewrite.apply(version_payload()))
    second.close()
    await world.ending()


@pytest.mark.virtual_clock
async def test_a_silent_peer_is_tried_again_after_a_minute() -> None:
    world = World(target=CLEARNET, fallback=Fallback.ALWAYS)
    loop = asyncio.get_running_loop()
    second = await world.fallback()
    assert 60 <= loop.time() < 63
    assert await loop.sock_recv(second, 4096) == HELLO
    world.client.close()
    assert await world.ending() is Ending.CLIENT_CLOSED


@pytest.mark.parametrize(
    ("target", "fallback"),
    [
        (ONION, Fallback.NEVER),
        (CLEARNET, Fallback.NEVER),
        (CLEARNET, Fallback.ONION_ONLY),
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


async def test_a_peer_proven_v2_is_never_spoken_to_in_plaintext() -> None:
    world = World(fallback=Fallback.ALWAYS, dial=no_dial)
    world.proven.add(world.flow.key, ONION)
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


async def test_relay_carries_what_is_no_v1_untouched() -> None:
    (client, near), (peer, far) = pair(), pair()
    task = asyncio.create_task(relay(near, b"first", far, Flow(key(), ONION), Deadlines()))
    assert await receive(peer) == b"first"
    await send(peer, b"answer")
    assert await receive(client) == b"answer"
    client.close()
    assert await task is Ending.CLIENT_CLOSED
    assert near.fileno() == far.fileno() == -1
    peer.close()


async def test_a_client_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    client, near = narrow_tcp_pair()
    peer, far = pair()
    task = asyncio.create_task(relay(near, b"", far, Flow(key(), ONION), Deadlines()))
    await send(peer, bytes(400_000))
    peer.close()
    assert len(await speak_then_read(client)) == 400_000
    assert await task is Ending.PEER_CLOSED


async def test_a_peer_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    peer, far = narrow_tcp_pair()
    client, near = pair()
    task = asyncio.create_task(relay(near, b"", far, Flow(key(), ONION), Deadlines()))
    await send(client, bytes(400_000))
    client.close()
    assert len(await speak_then_read(peer)) == 400_000
    assert await task is Ending.CLIENT_CLOSED


async def test_a_v2_peer_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    far, near = narrow_tcp_pair()
    client, own = pair()
    flow = Flow(key(), ONION, MAINNET)
    settings = BridgeSettings()
    task = asyncio.create_task(bridge(own, HELLO, near, no_dial, flow, settings, ProvenV2()))
    peer = V2End(far)
    await peer.shake()
    assert await peer.contents() == LONG_VERSION
    await send(client, v1("block", bytes(400_000)))
    client.close()
    _, contents = peer.transport.receive(await speak_then_read(far))
    assert contents == [short("block", bytes(400_000))]
    await task


async def test_a_v1_peer_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    far, near = narrow_tcp_pair()

    async def dial() -> socket.socket:
        return near

    world = World(dial=dial)
    await receive(world.peer)
    world.peer.close()
    assert await receive(far) == HELLO
    await send(world.client, bytes(400_000))
    world.client.close()
    assert await speak_then_read(far) == bytes(400_000)
    assert await world.ending() is Ending.CLIENT_CLOSED
    assert near.fileno() == -1


def test_proven_peers_are_kept_per_key_bounded_and_forgotten() -> None:
    isolator = Isolator()
    one, two = key(b"one", isolator), key(b"two", isolator)
    proven = ProvenV2(max_keys=2, max_peers=2)
    isolator.on_new_epoch(proven.forget)
    proven.add(one, ONION)
    assert proven.has(one, ONION)
    assert not proven.has(two, ONION)
    assert not proven.has(one, CLEARNET)
    for number in range(5):
        proven.add(one, Target.parse("peer.example", number + 1))
    assert not proven.has(one, ONION)
    assert proven.has(one, Target.parse("peer.example", 5))
    proven.add(two, ONION)
    proven.add(key(b"three", isolator), ONION)
    assert not proven.has(one, Target.parse("peer.example", 5))
    isolator.new_epoch()
    assert not proven.has(two, ONION)


def test_a_flow_prints_nothing() -> None:
    assert "onion" not in repr(Flow(key(), ONION, MAINNET))


def test_hello_is_what_clients_send() -> None:
    assert encode(MAINNET, VERSION, version_payload()) == HELLO
