"""A loop of its own thread that serves SOCKS and inbound peers, dialling straight.

What the front end does with Bitcoin flows, without Tor: SOCKS request, answer, look at
the client's first bytes, translate.  The dialer here takes the place of the one that goes
through Tor; it is told the isolation key of every stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from isoproxy.bitcoin.carry import Carrier, CarrySettings
from isoproxy.bitcoin.flow import Flow
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.inbound import Inbound, InboundSettings
from isoproxy.bitcoin.known_peers import PeerMemory
from isoproxy.bitcoin.options import Fallback
from isoproxy.bitcoin.proxy import BitcoinProxy, ProxySettings
from isoproxy.isolation import (
    P2P,
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    Purpose,
    own_group,
)
from isoproxy.net.target import Target
from isoproxy.socks import Server
from tests.kit.relaying import relay_stream


@dataclass
class Proxy:
    """A SOCKS5 server with BIP324 behind it."""

    settings: CarrySettings = field(default_factory=CarrySettings)
    port: int = 0
    flows: list[Flow] = field(default_factory=list)
    dialled: list[tuple[IsolationKey, Target]] = field(default_factory=list)
    known: PeerMemory = field(default_factory=lambda: PeerMemory(time.monotonic))
    isolator: Isolator = field(default_factory=Isolator)

    async def serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await loop.sock_accept(listener)
                client.setblocking(False)
                group.create_task(self._session(client))

    async def _session(self, client: socket.socket) -> None:
        with contextlib.closing(client), contextlib.suppress(OSError, TimeoutError):
            await self._serve(client)

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = Server()
        request = None
        while request is None:
            data = await loop.sock_recv(client, 512)
            if not data:
                return
            request = server.receive(data)
            if request is None:
                await loop.sock_sendall(client, server.data_to_send())
        target = Target.parse(request.host, request.port)
        user, password = request.username, request.password
        stream = IsolationTuple(None, ClientProtocol.SOCKS5, user, password)
        key = self.isolator.key_for(ListenerRule(own_group("interop")), stream)

        peer = await self.connect(key, P2P, target)
        await loop.sock_sendall(client, server.succeed())
        carrier = Carrier(self, relay_stream, FlowRegistry(), self.known, self.settings)
        flow = Flow(key, target)
        self.flows.append(flow)
        await carrier.carry(client, server.leftover, peer, flow, b"")

    async def connect(
        self, key: IsolationKey, purpose: Purpose, target: Target, *, client: bytes = b""
    ) -> socket.socket:
        """What the dialer through Tor does, without Tor."""
        self.dialled.append((key, target))
        peer = socket.socket()
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, (target.host, target.port))
        return peer


@contextlib.contextmanager
def serving(
    serve: Callable[[socket.socket], Awaitable[None]], host: str = "127.0.0.1"
) -> Iterator[int]:
    """Run `serve(listener)` on a loop in a thread; gives the port."""
    listener = socket.create_server((host, 0))
    listener.setblocking(False)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    task: asyncio.Task[None] | None = None

    async def run() -> None:
        nonlocal task
        task = asyncio.ensure_future(_awaited(serve, listener))
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait(5)
    try:
        yield listener.getsockname()[1]
    finally:
        assert task is not None
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
        listener.close()


async def _awaited(
    serve: Callable[[socket.socket], Awaitable[None]], listener: socket.socket
) -> None:
    await serve(listener)


@contextlib.contextmanager
def proxy(settings: CarrySettings | None = None) -> Iterator[Proxy]:
    """A SOCKS5 proxy with BIP324 behind it."""
    made = Proxy(settings or CarrySettings())
    with serving(made.serve) as made.port:
        yield made


@contextlib.contextmanager
def port_1324(
    peer: Target, settings: CarrySettings | None = None
) -> Iterator[tuple[FlowRegistry, int]]:
    """A proxy for programs that know none, with one peer; gives its flows and its port."""
    registry, memory = FlowRegistry(), PeerMemory(time.monotonic)
    carrying = settings or CarrySettings(Fallback.NEVER)
    carrier = Carrier(Proxy(), relay_stream, registry, memory, carrying)
    rule = ListenerRule(own_group("interop"))
    made = BitcoinProxy(ProxySettings(rule, peer=peer), carrier, Isolator())
    with serving(made.serve) as port:
        yield registry, port


@contextlib.contextmanager
def inbound(service: Inbound, host: str = "127.0.0.1") -> Iterator[int]:
    """An inbound service; gives its port."""
    with serving(service.serve, host) as port:
        yield port


def inbound_service(settings: InboundSettings) -> Inbound:
    """What serves peers for a node, in this process."""
    return Inbound(settings, relay_stream, FlowRegistry())
