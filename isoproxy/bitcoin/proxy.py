"""Port 1324: for clients that cannot be told about a SOCKS proxy, as bip324-proxy has it.

Theory of operation
    The destination of a connection is, in this order: what a client of SOCKS or HTTP asks
    for (the front end's session takes over, untouched), the one peer this proxy is
    configured for, where the kernel says the connection was going before nftables
    redirected it, or the address the client's VERSION message is addressed to (`addr_recv`
    in Bitcoin's protocol documentation, "version").  A map of the configuration can turn
    such an address into another destination, an onion service for instance.

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
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from isoproxy.bitcoin.carry import Carrier
from isoproxy.bitcoin.flow import Flow
from isoproxy.bitcoin.messages import Network, Networks
from isoproxy.bitcoin.reading import read_until, readable
from isoproxy.bitcoin.sniff import (
    PROXY_PEEK,
    Detected,
    begins_proxy_protocol,
    detect,
    read_version,
)
from isoproxy.bitcoin.v1 import Version
from isoproxy.errors import ErrorKind, IsoproxyError, PolicyRefusal
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    client_of_address,
    client_of_uid,
)
from isoproxy.net.accept_loop import Connections
from isoproxy.net.original_destination import original_destination
from isoproxy.net.target import Target
from isoproxy.net.unix_socket import peer_credentials

Resolve = Callable[[Target, IsolationKey, bytes], Awaitable[Target]]
"""Turns a name that Tor must not see into a target, under a key and for a client field."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One proxy, and the isolation `rule` of its connections.

    `peer` is its only destination if set; `peers` maps addresses learned to destinations;
    `allow_private` lifts the guard, for test networks alone; `silence` is how many seconds
    a client whose destination is known may wait before the peer is dialled, which may be
    the one to speak first; `handshake_timeout` how long one may take to say where to.
    """

    rule: ListenerRule
    peer: Target | None = None
    peers: Mapping[Target, Target] = field(default_factory=dict)
    allow_private: bool = False
    silence: float = 3.0
    handshake_timeout: float = 60.0
    max_connections: int = 512


def check_learned(address: IPv4Address | IPv6Address) -> None:
    """Raise PolicyRefusal(ADDRESS_REFUSED) unless `address` is global unicast."""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if isinstance(address, IPv6Address) and (address.teredo or address.is_site_local):
        raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)
    if not address.is_global or address.is_multicast or address.is_reserved:
        raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)


def client_field(client: socket.socket) -> bytes:
    """Who the client is, for isolation: its address, or its user on a unix socket."""
    if client.family == socket.AF_UNIX:
        return client_of_uid(peer_credentials(client).uid)
    peer = client.getpeername()
    return client_of_address(peer[0], *peer[3:])


class BitcoinProxy:
    """Serves clients on a listening socket.

    `carrier` opens streams to peers and carries them; its settings are this proxy's own.
    `socks` serves a client of SOCKS or HTTP on a socket from which nothing has been read.
    `settings` may be replaced at any time, for connections to come.
    """

    def __init__(
        self,
        settings: ProxySettings,
        carrier: Carrier,
        isolator: Isolator,
        *,
        resolve: Resolve | None = None,
        socks: Callable[[socket.socket], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.carrier = carrier
        self._isolator = isolator
        self._resolve = resolve
        self._socks = socks
        self.accepted = 0
        self.refused: Counter[ErrorKind] = Counter()
        self.connections = Connections(self.handle, self._is_full)

    async def serve(self, listener: socket.socket) -> None:
        """As `Connections.serve`."""
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
            if await self._speaks_to_a_proxy(client):
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

    async def _speaks_to_a_proxy(self, client: socket.socket) -> bool:
        """Look at the first bytes and leave them where they are."""
        settings = self.settings
        known = settings.peer is not None or original_destination(client) is not None
        try:
            async with asyncio.timeout(settings.silence if known else settings.handshake_timeout):
                await readable(client)
        except TimeoutError:
            if not known:
                raise
            return False
        with contextlib.suppress(BlockingIOError):
            return begins_proxy_protocol(client.recv(PROXY_PEEK, socket.MSG_PEEK))
        return False

    async def _serve_bitcoin(self, client: socket.socket) -> None:
        first, network = await self._sniff(client)
        target = self._known_destination(client)
        if target is None:
            if not isinstance(network, Network):
                raise PolicyRefusal(kind=ErrorKind.MALFORMED)
            first, version = await self._version(client, first, network)
            target = self._learned(version.recv_host, version.recv_port)
        client_id = client_field(client)
        key = self._isolator.key_for(
            self.settings.rule,
            IsolationTuple(
                client=client_id,
                protocol=ClientProtocol.BITCOIN,
                dest_host=target.host.encode("ascii"),
                dest_port=target.port,
            ),
        )
        if self._resolve is not None:
            target = await self._resolve(target, key, client_id)
        peer = await self.carrier.dial(key, target, client_id)
        await self.carrier.carry(client, first, peer, Flow(key, target), client_id)

    async def _sniff(self, client: socket.socket) -> tuple[bytes, Network | Detected | None]:
        networks: Networks = self.carrier.settings.recognised()

        def judge(first: bytes) -> Network | Detected | None:
            found = detect(first, networks)
            return None if found is Detected.NEED_MORE else found

        return await read_until(
            client,
            judge,
            silence=self.settings.silence,
            handshake_timeout=self.settings.handshake_timeout,
        )

    async def _version(
        self, client: socket.socket, first: bytes, network: Network
    ) -> tuple[bytes, Version]:
        """Read the rest of the client's VERSION message; all that was read, and what it says."""
        first, version = await read_until(
            client,
            lambda first: read_version(first, network),
            silence=self.settings.silence,
            handshake_timeout=self.settings.handshake_timeout,
            first=first,
        )
        if version is None:
            raise PolicyRefusal(kind=ErrorKind.MALFORMED)
        return first, version

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
