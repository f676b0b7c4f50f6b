"""Peers that come to us: an onion service's local port, terminated as v2 for a v1 node.

Theory of operation
    Tor hands the onion service's streams to a local port; here they are accepted.  A peer
    whose first 16 bytes are a VERSION header of our network speaks v1 and is passed
    through; anything else must be a v2 initiator, to whom we are the responder, while the
    local node hears v1.  A v2 stream does not say which network it is for, so the network
    is configured.

    The node does not know that it is reachable by v2, and says so in its VERSION; other
    nodes overwrite what they knew of it with that and come in v1 the next time.
    `advertise_v2` sets service bit 11 on the node's way out, on both kinds of connection.

Invariants
    The node's address is configured and local: nothing a peer sends chooses it.  A peer
    costs nothing at the node before it sent a byte; connections are bounded in number.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from isoproxy.bitcoin.messages import Network, Networks
from isoproxy.bitcoin.options import Deadlines, TransportOptions
from isoproxy.bitcoin.pump import part, pump
from isoproxy.bitcoin.sniff import read_opening
from isoproxy.bitcoin.translator import Ending, Relay, Translator
from isoproxy.bitcoin.v1 import Detected
from isoproxy.net.accept_loop import Connections
from isoproxy.net.endpoint import family_of


@dataclass(frozen=True, slots=True)
class InboundSettings:
    """One inbound service.  `options.version` rewrites the node's VERSION; see there."""

    network: Network
    advertise_v2: bool = False
    options: TransportOptions = field(default_factory=TransportOptions)
    deadlines: Deadlines = field(default_factory=Deadlines)
    max_connections: int = 125

    def transport_options(self) -> TransportOptions:
        """The options, with service bit 11 if it is to be advertised."""
        if not self.advertise_v2:
            return self.options
        return replace(self.options, version=replace(self.options.version, advertise_v2=True))


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class InboundFlow:
    """One peer's connection to the node, for a status page."""

    transport: str = "detecting"
    translator: Translator | None = None
    ended: Ending | None = None

    @property
    def session_id(self) -> str:
        """As the peer shows it: 64 hex digits, "" while there is none."""
        return self.translator.session_id if self.translator is not None else ""


class Inbound:
    """Serves peers on a listening socket; `node` opens a connection to the local node."""

    def __init__(
        self, settings: InboundSettings, node: Callable[[], Awaitable[socket.socket]]
    ) -> None:
        self._settings = settings
        self._node = node
        self.flows: set[InboundFlow] = set()
        self.refused = 0
        self._connections = Connections(self.handle, self._is_full)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled; then end all connections."""
        await self._connections.serve(listener)

    def _is_full(self, count: int) -> bool:
        full = count >= self._settings.max_connections
        self.refused += full
        return full

    async def handle(self, peer: socket.socket) -> None:
        """Serve one peer to the end; closes its socket."""
        flow = InboundFlow()
        self.flows.add(flow)
        try:
            await self._serve(peer, flow)
        except (OSError, TimeoutError):
            self.refused += 1
        finally:
            self.flows.discard(flow)
            peer.close()

    async def _serve(self, peer: socket.socket, flow: InboundFlow) -> None:
        settings = self._settings
        first, found = await read_opening(
            peer,
            Networks([settings.network]),
            silence=settings.deadlines.first_byte,
            patience=settings.deadlines.handshake,
        )
        if found is Detected.NEED_MORE:  # silent, or gone
            self.refused += 1
            return
        node = await self._node()
        with contextlib.closing(node):
            if found is Detected.NOT_V1:
                converter: Translator | Relay = self._translator(flow)
            else:
                converter = self._relay(flow)
            linger = settings.deadlines.linger
            flow.ended = await pump(converter, node, peer, linger=linger, from_peer=first)
            await part(node, peer, seconds=linger)

    def _translator(self, flow: InboundFlow) -> Translator:
        its: InboundFlow = weakref.proxy(flow)  # no cycle: the buffers go when the flow does

        def ready() -> None:
            its.transport = "v2"

        flow.translator = Translator(
            self._settings.network,
            self._settings.transport_options(),
            initiator=False,
            now=asyncio.get_running_loop().time(),
            deadlines=self._settings.deadlines,
            on_ready=ready,
        )
        return flow.translator

    def _relay(self, flow: InboundFlow) -> Relay:
        flow.transport = "v1"
        return Relay(
            now=asyncio.get_running_loop().time(),
            deadlines=self._settings.deadlines,
            network=self._settings.network,
            rewrite=self._settings.transport_options().version,
        )


def local_node(host: str, port: int) -> Callable[[], Awaitable[socket.socket]]:
    """Opens connections to the node at a loopback or otherwise configured IP address."""

    async def connect() -> socket.socket:
        sock = socket.socket(family_of(host), socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    return connect
