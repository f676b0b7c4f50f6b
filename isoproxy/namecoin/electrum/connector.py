"""How a connection to a name server is opened: a key of its own, Tor, TLS, the handshake.

Invariants
    Each connection is dialled under a key that nobody else has, so over a circuit of its
    own, and is thrown away if the epoch of that key has ended meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, Protocol

from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import IsolationKey, Isolator, Purpose, name_purpose
from isoproxy.namecoin.chain.params import ChainParams
from isoproxy.namecoin.electrum.servers import Server
from isoproxy.namecoin.electrum.session import LOOKUP_LINE, ElectrumSession
from isoproxy.namecoin.electrum.tls import NotVouchedFor, TlsPolicy
from isoproxy.net.target import Target

_MORE_CONNECTIONS: Final = 2
"""One to learn that no authority vouches for a server, one to see its certificate first."""


class Dials(Protocol):
    """The part of the Tor dialer that is needed here."""

    async def connect(
        self, key: IsolationKey, purpose: Purpose, target: Target, *, timeout: float | None = None
    ) -> socket.socket:
        """A connected, non-blocking socket; raises DialError."""
        ...


class Opener:
    """Opens connections to the servers of `network`; each may take `timeout` s at most."""

    def __init__(
        self,
        dialer: Dials,
        isolator: Isolator,
        network: ChainParams,
        tls: TlsPolicy,
        timeout: float,
    ) -> None:
        self._dialer = dialer
        self._isolator = isolator
        self._network = network
        self._tls = tls
        self._timeout = timeout

    async def open(self, server: Server) -> ElectrumSession:
        """A new connection to `server`, the handshake done.

        A certificate that no authority vouches for takes further connections, over other
        circuits, to be judged.  Raises DialError, STALE_KEY if the epoch changed meanwhile, and
        RemoteProtocolError for a server that is of no use.
        """
        try:
            async with asyncio.timeout(self._timeout):
                key, streams = await self._judged_streams(server)
        except TimeoutError:
            raise DialError(kind=ErrorKind.DIAL_TIMEOUT) from None
        session = await ElectrumSession.start(
            *streams, self._network, max_line=LOOKUP_LINE, timeout=self._timeout
        )
        if not self._isolator.is_current(key):
            session.close()
            raise DialError(kind=ErrorKind.STALE_KEY)
        return session

    async def _judged_streams(
        self, server: Server
    ) -> tuple[IsolationKey, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Streams whose certificate is the right one, and the key they were dialled under."""
        for _ in range(_MORE_CONNECTIONS):
            key = self._isolator.own_key("name server connection")
            with contextlib.suppress(NotVouchedFor):
                return key, await self._streams(key, server)
        key = self._isolator.own_key("name server connection")
        return key, await self._streams(key, server)

    async def _streams(
        self, key: IsolationKey, server: Server
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = await self._dialer.connect(
            key, name_purpose(server.label), server.target, timeout=self._timeout
        )
        return await self._tls.open(sock, server)
