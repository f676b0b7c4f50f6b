"""How a connection to a name server is opened: a key of its own, Tor, TLS, the handshake.

Invariants
    Each connection is dialled under a key that nobody else has, so over a circuit of its
    own; so is each further try that a certificate takes.  A new epoch ends none that has
    reached its server: the server would see it, of all that are one client's, at one moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, Protocol

from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import IsolationKey, Isolator, Purpose, name_purpose
from isoproxy.namecoin.chain.params import ChainParams
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import LOOKUP_LINE, ElectrumSession
from isoproxy.namecoin.electrum.tls import NotVouchedFor
from isoproxy.net.target import Target

_MORE_CONNECTIONS: Final = 2
"""One to learn that no authority vouches for a server, one to see its certificate first."""


class Dials(Protocol):
    """The part of the Tor dialer that is needed here."""

    async def connect(
        self,
        key: IsolationKey,
        purpose: Purpose,
        target: Target,
        *,
        client: bytes = b"",
        timeout: float | None = None,
    ) -> socket.socket:
        """A connected, non-blocking socket; raises DialError.  `client` pays for the circuit."""
        ...


class SpeaksTls(Protocol):
    """The part of `tls.TlsPolicy` that is needed here."""

    async def open(
        self, sock: socket.socket, server: NameServer
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Streams over the connected `sock`, which is closed on failure; raises DialError."""
        ...


class Opener:
    """Opens connections to the servers of `network`; each may take `timeout` s at most."""

    def __init__(
        self,
        dialer: Dials,
        isolator: Isolator,
        network: ChainParams,
        tls: SpeaksTls,
        timeout: float,
    ) -> None:
        self._dialer = dialer
        self._isolator = isolator
        self._network = network
        self._tls = tls
        self._timeout = timeout

    async def open(self, server: NameServer, client: bytes = b"") -> ElectrumSession:
        """A new connection to `server`, the handshake done; `client` pays for the circuit.

        A certificate that no authority vouches for takes further connections, over other
        circuits, to be judged.  Raises DialError, and RemoteProtocolError for a server that
        is of no use.
        """
        try:
            async with asyncio.timeout(self._timeout):
                streams = await self._judged_streams(server, client)
        except TimeoutError:
            raise DialError(kind=ErrorKind.DIAL_TIMEOUT) from None
        return await ElectrumSession.start(
            *streams, self._network, max_line=LOOKUP_LINE, timeout=self._timeout
        )

    async def _judged_streams(
        self, server: NameServer, client: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Streams whose certificate is the right one."""
        for _ in range(_MORE_CONNECTIONS):
            with contextlib.suppress(NotVouchedFor):
                return await self._streams(server, client)
        return await self._streams(server, client)

    async def _streams(
        self, server: NameServer, client: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = await self._dialer.connect(
            self._isolator.own_key("name server connection"),
            name_purpose(server.label),
            server.target,
            client=client,
            timeout=self._timeout,
        )
        return await self._tls.open(sock, server)
