"""Peers that come to us: an onion service's local port, terminated as v2 for a v1 node.

Theory of operation
    Tor hands the onion service's streams to a local port; here they are accepted.  A peer
    whose first 16 bytes are a VERSION header of our network speaks v1 and is passed
    through; anything else must be a v2 initiator, to whom we are the responder (BIP324,
    "Version negotiation"), while the local node hears v1.  A v2 stream does not say which
    network it is for, so the network is configured.

    A node that speaks v2 itself (`node_probe`) is handed a v2 peer's bytes as they are: the
    session is theirs, and our v1 in between would downgrade it.

    A v1 node does not know that it is reachable by v2, and says so in its VERSION; other
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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from isoproxy.bitcoin.carry import CarrySettings, RelayStream, end, relay_v1
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Event, Flow
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.messages import Network
from isoproxy.bitcoin.node_probe import NodeProbe
from isoproxy.bitcoin.options import Deadlines, TransportOptions
from isoproxy.bitcoin.pump import pump
from isoproxy.bitcoin.reading import read_until
from isoproxy.bitcoin.sniff import is_v1_peer
from isoproxy.bitcoin.translator import Translator
from isoproxy.net.accept_loop import Connections
from isoproxy.net.endpoint import family_of
from isoproxy.net.target import Target


@dataclass(frozen=True, slots=True)
class InboundSettings:
    """One inbound service, for the node at `node`, a loopback or private address.

    `options.version` rewrites the node's VERSION; see there.
    """

    network: Network
    node: Target
    advertise_v2: bool = False
    options: TransportOptions = field(default_factory=TransportOptions)
    deadlines: Deadlines = field(default_factory=Deadlines)
    max_connections: int = 125

    def carrying(self) -> CarrySettings:
        """How the peers are carried, with service bit 11 if it is to be advertised."""
        options = self.options
        if self.advertise_v2:
            options = replace(options, version=replace(options.version, advertise_v2=True))
        return CarrySettings(options=options, deadlines=self.deadlines)


class Inbound:
    """Serves peers on a listening socket; `connect` opens a connection to the local node,
    `speaks_v2` says whether that takes v2."""

    def __init__(
        self,
        settings: InboundSettings,
        relay: RelayStream,
        registry: FlowRegistry,
        connect: Callable[[], Awaitable[socket.socket]] | None = None,
        speaks_v2: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._settings = settings
        self._carrying = settings.carrying()
        self._relay = relay
        self.registry = registry
        self._connect = connect or partial(_connect, settings.node)
        self._speaks_v2 = speaks_v2 or NodeProbe(settings.network, self._connect).speaks_v2
        self.refused = 0
        self.connections = Connections(self.handle, self._is_full)

    async def serve(self, listener: socket.socket) -> None:
        """As `Connections.serve`."""
        await self.connections.serve(listener)

    def _is_full(self, count: int) -> bool:
        full = count >= self._settings.max_connections
        self.refused += full
        return full

    async def handle(self, peer: socket.socket) -> None:
        """Serve one peer to the end; closes its socket."""
        with contextlib.closing(peer):
            try:
                await self._serve(peer)
            except (OSError, TimeoutError):
                self.refused += 1

    async def _serve(self, peer: socket.socket) -> None:
        settings = self._settings
        first, is_v1 = await read_until(
            peer,
            lambda first: is_v1_peer(first, settings.network),
            silence=settings.deadlines.first_byte,
            handshake_timeout=settings.deadlines.handshake,
        )
        if is_v1 is None:  # silent, or gone
            self.refused += 1
            return
        flow = Flow(None, settings.node, inbound=True)
        with self.registry.entry(flow), contextlib.closing(await self._node(flow)) as node:
            if is_v1:
                flow.network = settings.network
                flow.on(Event.V1_PEER)
                await relay_v1(node, peer, flow, self._carrying, self._relay, from_peer=first)
            elif await self._speaks_v2():
                flow.on(Event.OTHER_CLIENT)
                closed_by = (await self._relay(peer, node, first, flow)).mirrored()
                flow.end(Ending.HANDED_ON, closed_by)
            else:
                flow.network = settings.network
                await self._translate(node, peer, first, flow)

    async def _node(self, flow: Flow) -> socket.socket:
        try:
            return await self._connect()
        except OSError:
            flow.end(Ending.DIAL_FAILED, ClosedBy.CLIENT)
            raise

    async def _translate(
        self, node: socket.socket, peer: socket.socket, first: bytes, flow: Flow
    ) -> None:
        translator = Translator(
            self._settings.network,
            self._carrying.options,
            initiator=False,
            now=asyncio.get_running_loop().time(),
            deadlines=self._settings.deadlines,
        )
        flow.translate(translator)
        linger = self._settings.deadlines.linger
        ending = await pump(translator, node, peer, linger=linger, from_peer=first)
        await end(flow, ending, self._carrying, node, peer)


async def _connect(node: Target) -> socket.socket:
    """A connection to the node at a loopback or otherwise configured IP address."""
    sock = socket.socket(family_of(node.host), socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (node.host, node.port))
    except BaseException:
        sock.close()
        raise
    return sock
