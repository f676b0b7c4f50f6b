"""Port 1324: a door for clients that cannot be told about a SOCKS proxy.

Theory of operation
    The destination of a connection is, in this order: what a SOCKS client asks for (it begins
    with a greeting, or a request of SOCKS4; the front end's session takes over, untouched),
    the one peer this proxy is configured for, where the kernel says the connection was
    going before nftables redirected it, or the address the client's VERSION message is
    addressed to.  A map of the configuration can turn such an address into another
    destination, an onion service for instance.

    VERSION holds what the client believes, and some clients put nonsense there (their own
    address, 127.0.0.1); so an address that was learned is refused unless it is global
    unicast: a proxy must not be talked into reaching the machine it runs on.

    Each connection is given its own isolation key by this proxy's rule; by default
    that separates clients and destinations, so every peer gets a circuit of its own.

Invariants
    Nothing is dialled without a key.  The number of connections is bounded, as is the
    time and the memory in which a connection must say what it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.bitcoin.bridge import BridgeSettings, Flow, bridge, relay
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Network, Networks
from isoproxy.bitcoin.redirect import original_destination
from isoproxy.bitcoin.sniff import read_late_opening, read_opening, read_version
from isoproxy.bitcoin.translator import Ending
from isoproxy.bitcoin.v1 import Detected
from isoproxy.errors import ErrorKind, IsoproxyError, PolicyRefusal
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    IsolationKey,
    IsolationTuple,
    client_of_address,
    client_of_uid,
)
from isoproxy.net.accept_loop import Connections
from isoproxy.net.target import Target
from isoproxy.net.unix_socket import peer_credentials

GATEWAY_ISOLATION: Final = (
    Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH | Isolate.DEST_ADDR | Isolate.DEST_PORT
)
_SOCKS5: Final = 5
_LAST_METHOD: Final = 9
_GREETING_LENGTH: Final = 2 + 255
_REQUEST4: Final = re.compile(
    # version 4, command, port and address, the user's name, of 4a the host's name, or as
    # much of it as is there; names have no control characters
    rb"\x04(?:[\x01\x02\xf0](?:.{0,6}|.{6}[^\x00-\x1f]*(?:\x00[^\x00-\x1f]*\x00?)?))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One proxy.  `peer` is its only destination if set; `peers` maps addresses learned
    to destinations; `allow_private` lifts the guard, for test networks alone; `silence`
    is how many seconds a client whose destination is known may wait before the peer is
    dialled, which may be the one to speak first; `patience` how long one may take to say where to.
    """

    peer: Target | None = None
    peers: Mapping[Target, Target] = field(default_factory=dict)
    networks: Networks = KNOWN_NETWORKS
    allow_private: bool = False
    silence: float = 3.0
    patience: float = 60.0
    max_connections: int = 512


def check_learned(address: IPv4Address | IPv6Address) -> None:
    """Raise PolicyRefusal(ADDRESS_REFUSED) unless `address` is global unicast."""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if isinstance(address, IPv6Address) and (address.teredo or address.is_site_local):
        raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)
    if not address.is_global or address.is_multicast or address.is_reserved:
        raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)


def begins_greeting(first: bytes) -> bool:
    """Whether a SOCKS5 client may have begun with `first`: version, count, assigned methods.

    The first byte alone would not do: one v2 stream in 256 begins with it, too.
    """
    if len(first) < 2:
        return first == bytes([_SOCKS5])
    version, count, *methods = first
    assigned = all(method <= _LAST_METHOD for method in methods[:count])
    return version == _SOCKS5 and count > 0 and assigned


def begins_socks(first: bytes) -> bool:
    """Whether a client of SOCKS5, 4 or 4a may have begun with `first`; as good as no v2 stream."""
    return begins_greeting(first) or _REQUEST4.fullmatch(first) is not None


def client_field(client: socket.socket) -> bytes:
    """Who the client is, for isolation: its address, or its user on a unix socket."""
    if client.family == socket.AF_UNIX:
        return client_of_uid(peer_credentials(client).uid)
    peer = client.getpeername()
    return client_of_address(peer[0], *peer[3:])


class BitcoinProxy:
    """Serves clients on a listening socket.

    `key_for` applies this proxy's isolation rule; `resolve` turns a name that Tor must
    not see into a target; `connect` opens a P2P stream; both do it under a key and on
    behalf of a client field; `socks` serves a SOCKS client on a socket from which nothing has
    been read.  `settings` and `bridging` may be replaced at any time, for connections to
    come.
    """

    def __init__(
        self,
        key_for: Callable[[IsolationTuple], IsolationKey],
        connect: Callable[[IsolationKey, Target, bytes], Awaitable[socket.socket]],
        registry: FlowRegistry,
        *,
        resolve: Callable[[Target, IsolationKey, bytes], Awaitable[Target]] | None = None,
        bridging: BridgeSettings | None = None,
        settings: ProxySettings | None = None,
        socks: Callable[[socket.socket], Awaitable[None]] | None = None,
    ) -> None:
        self._key_for = key_for
        self._resolve = resolve
        self._connect = connect
        self._registry = registry
        self.bridging = bridging or BridgeSettings()
        self.settings = settings or ProxySettings()
        self._socks = socks
        self.accepted = 0
        self.refused: Counter[ErrorKind] = Counter()
        self.connections = Connections(self.handle, self._is_full)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled; then end all connections."""
        await self.connections.serve(listener)

    def _is_full(self, count: int) -> bool:
        self.accepted += 1
        full = count >= self.settings.max_connections
        if full:
            self.refused[ErrorKind.BUSY] += 1
        return full

    async def handle(self, client: socket.socket) -> None:
        """Serve one client to the end; closes its socket."""
        try:
            if await self._is_socks(client):
                if self._socks is None:
                    raise PolicyRefusal(kind=ErrorKind.COMMAND_NOT_SUPPORTED)
                await self._socks(client)
            else:
                await self._serve_bitcoin(client)
        except IsoproxyError as error:
            self.refused[error.kind] += 1
        except TimeoutError:
            self.refused[ErrorKind.HANDSHAKE_TIMEOUT] += 1
        except OSError:
            self.refused[ErrorKind.GENERAL_FAILURE] += 1
        finally:
            client.close()

    async def _is_socks(self, client: socket.socket) -> bool:
        """Look at the first bytes and leave them where they are."""
        known = self.settings.peer is not None or original_destination(client) is not None
        patience = self.settings.silence if known else self.settings.patience
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(client, readable.set)
        try:
            async with asyncio.timeout(patience):
                await readable.wait()
        except TimeoutError:
            if not known:
                raise
            return False
        finally:
            loop.remove_reader(client)
        with contextlib.suppress(BlockingIOError):
            return begins_socks(client.recv(_GREETING_LENGTH, socket.MSG_PEEK))
        return False

    async def _serve_bitcoin(self, client: socket.socket) -> None:
        settings, bridging = self.settings, self.bridging
        networks = bridging.recognised(settings.networks)
        first, network = await read_opening(
            client, networks, silence=settings.silence, patience=settings.patience
        )
        target = self._known_destination(client)
        if target is None:
            if not isinstance(network, Network):
                raise PolicyRefusal(kind=ErrorKind.MALFORMED)
            first, version = await read_version(client, first, network, settings.patience)
            target = self._learned(version.recv_host, version.recv_port)
        whose = client_field(client)
        key = self._key_for(
            IsolationTuple(
                client=whose,
                protocol=ClientProtocol.BITCOIN,
                dest_host=target.host.encode("ascii"),
                dest_port=target.port,
            )
        )

        found = target if self._resolve is None else await self._resolve(target, key, whose)

        async def dial() -> socket.socket:
            return await self._connect(key, found, whose)

        flow = Flow(key, found)
        peer, deadlines = await dial(), bridging.deadlines
        with contextlib.closing(peer), self._registry.entry(flow):
            if not first:
                first, network = await read_late_opening(
                    client, peer, networks, patience=settings.patience, idle=deadlines.idle
                )
            if isinstance(network, Network):
                flow.network = network
                await bridge(client, first, peer, dial, flow, bridging, self._registry.proven)
            elif network is Detected.FOREIGN:
                flow.ended = Ending.V2_REQUIRED
            else:
                await relay(client, first, peer, flow, deadlines, networks)

    def _known_destination(self, client: socket.socket) -> Target | None:
        """What needs no VERSION: the configured peer, or the original destination."""
        if self.settings.peer is not None:
            return self.settings.peer
        original = original_destination(client)
        return None if original is None else self._learned(*original)

    def _learned(self, address: IPv4Address | IPv6Address, port: int) -> Target:
        learned = Target.parse(str(address), port)
        mapped = self.settings.peers.get(learned)
        if mapped is not None:
            return mapped
        if not self.settings.allow_private:
            check_learned(address)
            if not port:
                raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)
        return learned
