"""Peers that come in, v2 or v1, to a v1 node."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Awaitable, Callable

import pytest

from isoproxy.bitcoin.carry import RelayStream
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Flow, TransportType
from isoproxy.bitcoin.flows import FlowRegistry, Outcome
from isoproxy.bitcoin.inbound import Inbound, InboundSettings
from isoproxy.bitcoin.messages import MAINNET, REGTEST, padded
from isoproxy.bitcoin.v1 import SERVICE_P2P_V2, VERSION, encode, parse_version
from isoproxy.front.timed_relay import relay_stream
from isoproxy.net.target import Target
from tests.kit.relaying import relay_stream as straight
from tests.unit.bitcoin.ends import (
    V1End,
    V2End,
    narrow_tcp_pair,
    pair,
    receive,
    send,
    speak_then_read,
)
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, short, v1
from tests.unit.bitcoin.test_v1 import version_payload
from tests.unit.front.services import front_services

NODE = Target.parse("127.0.0.1", 8333)


async def only_v1() -> bool:
    return False


class World:
    """An inbound service; the node's far end appears in `nodes`."""

    def __init__(
        self,
        *,
        advertise_v2: bool = False,
        relay: RelayStream = straight,
        speaks_v2: Callable[[], Awaitable[bool]] = only_v1,
    ) -> None:
        self.nodes: asyncio.Queue[socket.socket] = asyncio.Queue()
        settings = InboundSettings(MAINNET, NODE, advertise_v2)
        self.service = Inbound(settings, relay, FlowRegistry(), self.connect, speaks_v2)

    async def connect(self) -> socket.socket:
        far, near = pair()
        self.nodes.put_nowait(far)
        return near

    def visit(self) -> tuple[socket.socket, asyncio.Task[None]]:
        far, near = pair()
        return far, asyncio.create_task(self.service.handle(near))


async def test_a_v2_peer_and_a_v2_node_have_their_session_to_themselves() -> None:
    async def both() -> bool:
        return True

    world = World(speaks_v2=both)
    sock, task = world.visit()
    peer = V2End(sock, initiator=True)
    shaking = asyncio.create_task(peer.shake())
    node = V2End(await world.nodes.get())
    await node.shake()
    await shaking
    assert peer.transport.session_id == node.transport.session_id
    await node.send(LONG_VERSION)
    assert await peer.contents() == LONG_VERSION
    (flow,) = world.service.registry.flows
    assert flow.transport is TransportType.UNTOUCHED
    node.sock.close()
    await task
    assert flow.closed_by is ClosedBy.CLIENT
    sock.close()


async def test_a_v1_peer_of_a_v2_node_is_passed_on_and_nobody_is_asked() -> None:
    async def never() -> bool:
        pytest.fail("the node was asked")

    world = World(speaks_v2=never)
    sock, task = world.visit()
    await send(sock, HELLO)
    node = V1End(await world.nodes.get())
    assert (await node.message())[0] == VERSION
    sock.close()
    await task
    node.sock.close()


@pytest.mark.parametrize("advertise", [True, False])
async def test_a_v2_peer_meets_a_v1_node(advertise: bool) -> None:
    world = World(advertise_v2=advertise)
    sock, task = world.visit()
    peer = V2End(sock, initiator=True)
    await peer.shake()
    await peer.send(LONG_VERSION)
    node = V1End(await world.nodes.get())
    assert await node.message() == (VERSION, version_payload())
    await send(node.sock, HELLO + v1("ping", bytes(8)))
    answered = await peer.contents()
    services = parse_version(answered[13:]).services
    assert bool(services & SERVICE_P2P_V2) is advertise
    assert await peer.contents() == short("ping", bytes(8))
    (flow,) = world.service.registry.flows
    assert flow.transport is TransportType.V2
    assert peer.transport.session_id is not None
    assert flow.session_id == peer.transport.session_id.hex()
    sock.close()
    await task
    assert flow.ended is Ending.PEER_CLOSED
    assert not world.service.registry.flows
    node.sock.close()


@pytest.mark.parametrize("advertise", [True, False])
async def test_a_v1_peer_is_passed_through(advertise: bool) -> None:
    world = World(advertise_v2=advertise)
    sock, task = world.visit()
    for byte in HELLO[:20]:
        await send(sock, bytes([byte]))
    await send(sock, HELLO[20:])
    node, peer = V1End(await world.nodes.get()), V1End(sock)
    assert await node.message() == (VERSION, version_payload())
    await send(node.sock, HELLO + v1("verack"))
    services = parse_version((await peer.message())[1]).services
    assert bool(services & SERVICE_P2P_V2) is advertise
    assert await peer.message() == (padded("verack"), b"")
    (flow,) = world.service.registry.flows
    assert (flow.transport, flow.session_id) == (TransportType.V1, "")
    node.sock.close()
    await task
    assert await receive(sock) == b""
    sock.close()


async def test_a_node_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    node, near = narrow_tcp_pair()

    async def connect() -> socket.socket:
        return near

    far, own = pair()
    task = asyncio.create_task(
        Inbound(InboundSettings(MAINNET, NODE), straight, FlowRegistry(), connect, only_v1).handle(
            own
        )
    )
    peer = V2End(far, initiator=True)
    await peer.shake()
    await peer.send(short("block", bytes(400_000)))
    far.close()
    assert await speak_then_read(node) == v1("block", bytes(400_000))
    await task


async def test_a_peer_that_still_speaks_gets_all_that_came_before_the_end() -> None:
    with front_services() as services:

        async def relay(
            client: socket.socket, peer: socket.socket, first: bytes, flow: Flow
        ) -> ClosedBy:
            return await relay_stream(services, client, peer, first, flow.relayed)

        world = World(relay=relay)
        far, own = narrow_tcp_pair()
        task = asyncio.create_task(world.service.handle(own))
        await send(far, HELLO)
        node = V1End(await world.nodes.get())
        assert await node.message() == (VERSION, version_payload())
        await send(node.sock, v1("block", bytes(400_000)))
        node.sock.close()
        assert await speak_then_read(far) == v1("block", bytes(400_000))
        await task


async def test_a_v1_peer_of_another_network_is_refused() -> None:
    world = World()
    sock, task = world.visit()
    await send(sock, encode(REGTEST, VERSION, version_payload()))
    await task
    while await receive(sock):
        pass
    sock.close()
    assert world.service.registry.totals().outcomes == {Outcome.FAILED: 1}
    node = world.nodes.get_nowait()
    assert await receive(node) == b""
    node.close()


@pytest.mark.virtual_clock
async def test_a_silent_peer_costs_the_node_nothing() -> None:
    world = World()
    sock, task = world.visit()
    await task
    assert 60 <= asyncio.get_running_loop().time() < 65
    assert world.nodes.empty()
    assert world.service.refused == 1
    sock.close()


@pytest.mark.virtual_clock
async def test_a_peer_that_stops_within_the_handshake() -> None:
    world = World()
    sock, task = world.visit()
    await asyncio.get_running_loop().sock_sendall(sock, b"\xaa" * 70)
    await task
    assert asyncio.get_running_loop().time() < 75
    world.nodes.get_nowait().close()
    sock.close()


async def test_peers_are_bounded_and_end_with_the_service() -> None:
    service = Inbound(InboundSettings(MAINNET, NODE, max_connections=1), straight, FlowRegistry())
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    serving = asyncio.create_task(service.serve(listener))
    visitors = []
    for _ in range(2):
        visitor = socket.socket()
        visitor.setblocking(False)
        await asyncio.get_running_loop().sock_connect(visitor, listener.getsockname())
        visitors.append(visitor)
    assert await receive(visitors[1]) == b""
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await receive(visitors[0]) == b""
    for sock in (*visitors, listener):
        sock.close()


async def test_a_node_that_is_down_closes_the_peer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    settings = InboundSettings(MAINNET, Target.parse("127.0.0.1", port))
    service = Inbound(settings, straight, FlowRegistry())
    far, near = pair()
    task = asyncio.create_task(service.handle(near))
    await send(far, HELLO)
    await task
    assert service.refused == 1
    far.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_local_node_is_reached(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        settings = InboundSettings(MAINNET, Target.parse(host, server.getsockname()[1]))
        service = Inbound(settings, straight, FlowRegistry())
        far, near = pair()
        task = asyncio.create_task(service.handle(near))
        await send(far, HELLO)
        server.setblocking(False)
        node, _ = await asyncio.get_running_loop().sock_accept(server)
        with node:
            assert await receive(node, len(HELLO)) == HELLO
        far.close()
        await task


def test_what_a_process_serves_by_can_be_sent_to_it() -> None:
    settings = InboundSettings(MAINNET, NODE, advertise_v2=True)
    there = pickle.loads(pickle.dumps(settings))  # noqa: S301  our own
    assert (there.network.magic, there.node) == (MAINNET.magic, NODE)
    assert there.network.ids.to_send == MAINNET.ids.to_send
