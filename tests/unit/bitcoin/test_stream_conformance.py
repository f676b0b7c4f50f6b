"""What `carry` carries is a stream like any other: as it is, and in v2 between v1 ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from isoproxy.bitcoin.carry import Carrier
from isoproxy.bitcoin.flow import ClosedBy, Flow
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.inbound import Inbound, InboundSettings
from isoproxy.bitcoin.known_peers import PeerMemory
from isoproxy.bitcoin.messages import MAINNET, padded
from isoproxy.bitcoin.v1 import HEADER_LENGTH, V1Receiver, encode
from isoproxy.front.timed_relay import relay_stream
from isoproxy.net.target import Target
from tests.kit.relaying import relay_stream as straight
from tests.kit.stream_conformance import (
    CHECKS,
    Check,
    Ends,
    check_an_end_at_once_is_an_end,
    check_last_bytes_and_end_in_one_moment,
    name_of,
    send,
    tcp_pair,
)
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import HELLO
from tests.unit.bitcoin.test_carry import Dialling, no_dial
from tests.unit.bitcoin.test_inbound import only_v1
from tests.unit.front.services import front_services

PEER = Target.parse("peer.example", 8333)
BLOCK = padded("block")
ENDS_CHECKS = check_an_end_at_once_is_an_end, check_last_bytes_and_end_in_one_moment
"""A peer that ends before its client has said a word ends the client too: what that says
then could be v1, and could not be carried."""


@contextlib.asynccontextmanager
async def untouched() -> AsyncIterator[Ends]:
    """A stream that is no v1: held for its first bytes, and then relayed."""
    with front_services() as services:

        async def relay(
            client: socket.socket, peer: socket.socket, first: bytes, flow: Flow
        ) -> ClosedBy:
            return await relay_stream(services, client, peer, first, flow.relayed)

        carrier = Carrier(Dialling(no_dial), relay, FlowRegistry(), PeerMemory(time.monotonic))
        (client, near), (peer, far) = tcp_pair(), tcp_pair()
        flow = Flow(key(), PEER)
        task = asyncio.create_task(carrier.carry(near, b"", far, flow, b""))
        try:
            with client, peer:
                yield Ends(client, peer)
            await asyncio.wait_for(task, 5)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (near.fileno(), far.fileno()) == (-1, -1)
        assert flow.ended is not None


async def in_blocks(plain: socket.socket, v1: socket.socket) -> None:
    """A v1 node whose blocks hold the bytes of `plain`; closes both sockets."""
    loop = asyncio.get_running_loop()

    async def wrap() -> None:
        await send(v1, HELLO)
        while data := await loop.sock_recv(plain, 1 << 16):
            await send(v1, encode(MAINNET, BLOCK, data))
        v1.shutdown(socket.SHUT_WR)

    async def unwrap() -> None:
        receiver = V1Receiver(MAINNET)
        while data := await loop.sock_recv(v1, 1 << 16):
            receiver.queue.append(data)
            while (message := receiver.next_message()) is not None:
                kind, start, end = message
                if kind == BLOCK:
                    await send(plain, bytes(receiver.queue.data[start + HEADER_LENGTH : end]))
        plain.shutdown(socket.SHUT_WR)

    with plain, v1, contextlib.suppress(OSError):
        await asyncio.gather(wrap(), unwrap())


@contextlib.asynccontextmanager
async def translated() -> AsyncIterator[Ends]:
    """From a v1 client into v2, and at an onion service of ours back to a v1 node."""
    (client, client_node), (peer, peer_node) = tcp_pair(), tcp_pair()
    (v1_client, near), (far, at_service), (v1_node, to_node) = (tcp_pair() for _ in range(3))

    async def connect() -> socket.socket:
        return to_node

    service = Inbound(InboundSettings(MAINNET, PEER), straight, FlowRegistry(), connect, only_v1)
    carrier = Carrier(Dialling(no_dial), straight, FlowRegistry(), PeerMemory(time.monotonic))
    flow = Flow(key(), PEER)
    tasks = [
        asyncio.create_task(work)
        for work in (
            in_blocks(client_node, v1_client),
            carrier.carry(near, b"", far, flow, b""),
            service.handle(at_service),
            in_blocks(peer_node, v1_node),
        )
    ]
    try:
        with client, peer:
            yield Ends(client, peer)
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(sock.fileno() == -1 for sock in (near, far, at_service, to_node))
    assert flow.translator is not None


@pytest.mark.parametrize("check", CHECKS + ENDS_CHECKS, ids=name_of)
async def test_what_is_no_v1(check: Check) -> None:
    await check(untouched)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_what_is_translated(check: Check) -> None:
    await check(translated)
