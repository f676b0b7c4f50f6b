"""A libp2p transport that dials through isoproxy and listens on loopback alone.

Theory of operation
    libp2p opens connections and listeners through transports.  This one stands in place of
    all others: what it dials goes through isoproxy under one isolation ID, and what it
    listens on is the local end of an onion service.  The peer is authenticated by Noise,
    as on any other transport.

Invariants
    Nothing is resolved here and nothing is dialled directly: what cannot go through Tor
    (UDP, QUIC, WebSocket, a DNS address list) is refused.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address

import trio
from libp2p import new_host
from libp2p.abc import IHost, IListener, IRawConnection, ITransport
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import THandler
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

import isoproxy
from isoproxy.errors import IsoproxyError
from isoproxy.multiaddr import parse_destination


class TorTransport(ITransport):
    """Dials through the isoproxy at `proxy`, under `isolation`; None: no two share."""

    def __init__(self, *, isolation: str | None, proxy: str) -> None:
        self._isolation = isolation
        self._proxy = proxy
        self._local = TCP()

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        dial = partial(
            isoproxy.create_connection,
            str(maddr),
            isolation=self._isolation,
            proxy=self._proxy,
        )
        try:
            sock = await trio.to_thread.run_sync(dial)
        except IsoproxyError as error:
            raise OpenConnectionError(str(error)) from None
        sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        return RawConnection(TrioTCPStream(stream), True)

    def create_listener(self, handler_function: THandler) -> IListener:
        return self._local.create_listener(handler_function)

    def can_dial(self, maddr: Multiaddr) -> bool:
        try:
            parse_destination(str(maddr))
        except IsoproxyError:
            return False
        return True

    def can_listen(self, maddr: Multiaddr) -> bool:
        if not self._local.can_listen(maddr):
            return False
        return ip_address(str(maddr).split("/")[2]).is_loopback

    def protocols(self) -> list[str]:
        return ["onion3", "tcp"]


def tor_host(transport: TorTransport, *, listen: list[Multiaddr]) -> IHost:
    """A libp2p host with a fresh identity, Noise, and no transport but this one.

    It tells peers none of its addresses: the local ones are nobody's business.
    """
    key_pair = create_new_key_pair()
    noise = Noise(key_pair, noise_privkey=create_noise_key_pair().private_key)
    return new_host(
        key_pair=key_pair,
        sec_opt={NOISE: noise},
        transports=[transport],
        listen_addrs=listen,
        addrs_factory=lambda _: [],
        disable_identify_address_discovery=True,
    )
