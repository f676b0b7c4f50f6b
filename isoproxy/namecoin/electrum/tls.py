"""TLS to Electrum servers: which server has to prove what.

    onion service           encrypted, no check of the name: the address authenticates
    a pin in the list       the certificate's SHA-256 must be the pin
    otherwise               a certificate authority vouches for it, or else, unless one
                            did before, it is the certificate that this server showed at
                            first, over two circuits (both kept in the state directory)

At the first contact an exit could show a certificate of its own.  So one that no authority
vouches for is kept only when a second connection, which has another circuit, shows the same.

A certificate changes for good reasons, too.  Where the one that was shown at first has
expired, the server is met as at the first contact, as in Electrum.  Where it has not, the
server may have moved to an authority: two circuits that show one certificate, for which an
authority vouches under the server's own name, replace it.  Everything else is refused, and
`problems` has it for a person to judge: it may be an exit in between.

A name's value is proven by work, whoever carries it; TLS keeps the exit from reading and
withholding, not from forging.

Invariants
    No host name is looked up and nothing is sent here: this wraps a connected socket.
    A certificate authority's word never gives way to a server's own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.electrum.pins import Pin, PinStore
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.observe.log import logger

_log = logger("names")
_LIMIT: Final = 1 << 16
_HAS_EXPIRED: Final = 10
"""X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""


class CertificateFault(Enum):
    """Why a server's certificate is refused; the value is what `isoproxy status` says."""

    CHANGED = "not the one it showed before"
    NOT_VOUCHED_FOR = "no longer vouched for by an authority"
    EXPIRED = "expired"
    NOT_THE_LISTED = "not the one in names.electrum.servers"


@dataclass(frozen=True, slots=True)
class CertificateProblem:
    """What is wrong with a server's certificate; `shown` is its SHA-256, where it was seen."""

    fault: CertificateFault
    shown: bytes | None = None


class CertificateRefused(DialError):
    """The server's certificate is not the one it has to be."""

    def __init__(self) -> None:
        super().__init__(
            "a name server's certificate is not the one it has to be; an exit may be in "
            "between. 'isoproxy doctor' says which server, and what to do.",
            kind=ErrorKind.GENERAL_FAILURE,
        )


class NotVouchedFor(CertificateRefused):
    """No authority vouches for the certificate, or it was not seen twice yet; what comes of
    it depends on a further connection, over another circuit."""


def ssl_context(*, authorities: bool) -> ssl.SSLContext:
    """What connections are made with; `authorities` have to vouch for the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _SmallTls(SSLProtocol):
    """The library's TLS with a smaller buffer to read into; there is one per connection.

    Its quarter of a megabyte each was nearly all that a bound connection took.
    """

    max_size = 1 << 14


class _StreamsOverTls(asyncio.StreamReaderProtocol):
    """Keeps the transport that it is given when the handshake is done."""

    transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = transport


async def _open_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """What `asyncio.open_connection` does, with `_SmallTls`.

    No session is resumed: to the server each connection is one of a new client.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LIMIT, loop=loop)
    streams = _StreamsOverTls(reader, loop=loop)
    shaken: asyncio.Future[None] = loop.create_future()
    tls = _SmallTls(loop, streams, context, shaken, server_hostname=host)
    try:
        transport, _ = await loop.create_connection(lambda: tls, sock=sock)
    except BaseException:
        shaken.cancel()
        raise
    try:
        await shaken
    except BaseException:
        transport.abort()
        raise
    over_tls = cast("asyncio.WriteTransport", streams.transport)
    return reader, asyncio.StreamWriter(over_tls, streams, reader, loop)


class TlsPolicy:
    """Wraps sockets to servers by the rules above; `clock` gives s since 1970."""

    def __init__(self, pins: PinStore, clock: Callable[[], float] = time.time) -> None:
        self._pins = pins
        self._clock = clock
        self._checking: ssl.SSLContext | None = None
        self._encrypting = ssl_context(authorities=False)
        self._unvouched: set[str] = set()
        self._changed: set[str] = set()
        """Servers whose first certificate is another now: has an authority vouched for it?"""
        self._shown: dict[str, bytes] = {}  # once, by servers of which it is not believed yet
        self.problems: dict[str, CertificateProblem] = {}
        """By label, the servers whose certificate was refused when they were last met."""

    async def open(
        self, sock: socket.socket, server: NameServer
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Streams over the connected `sock`, which is closed on failure.

        Raises DialError; after NotVouchedFor a new connection over another circuit is worth
        a try, and once more after that.
        """
        if not server.tls:
            return await asyncio.open_connection(sock=sock, limit=_LIMIT)
        by_authority = self._asks_authorities(server)
        try:
            context = await self._authorities() if by_authority else self._encrypting
            reader, writer = await _open_tls(sock, context, server.target.host)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise self._not_vouched_for(server, error.verify_code) from None
        except OSError:
            sock.close()
            raise DialError(kind=ErrorKind.GENERAL_FAILURE) from None
        except BaseException:
            sock.close()
            raise
        try:
            self._judge(writer, server, by_authority=by_authority)
        except CertificateRefused:
            writer.transport.abort()
            raise
        self.problems.pop(server.label, None)
        return reader, writer

    def _asks_authorities(self, server: NameServer) -> bool:
        if server.pin is not None or server.target.is_onion:
            return False
        if self._pins.is_vouched_for(server) or server.label in self._changed:
            return True
        return self._pins.get(server) is None and server.label not in self._unvouched

    async def _authorities(self) -> ssl.SSLContext:
        """The context that checks; reading the authorities' certificates takes a while."""
        if self._checking is None:
            self._checking = await asyncio.to_thread(ssl_context, authorities=True)
        return self._checking

    def _not_vouched_for(self, server: NameServer, code: int) -> CertificateRefused:
        """What to raise where no authority vouches for `server`, because of `code`."""
        expired = code == _HAS_EXPIRED
        if self._pins.is_vouched_for(server):
            fault = CertificateFault.EXPIRED if expired else CertificateFault.NOT_VOUCHED_FOR
            return self._refusal(server, CertificateProblem(fault))
        if server.label in self._changed:
            self._changed.discard(server.label)
            shown = self._shown.pop(server.label, None)
            return self._refusal(server, CertificateProblem(CertificateFault.CHANGED, shown))
        self._unvouched.add(server.label)
        return NotVouchedFor()

    def _judge(
        self, writer: asyncio.StreamWriter, server: NameServer, *, by_authority: bool
    ) -> None:
        """Raises CertificateRefused unless the certificate shown is the right one."""
        if server.pin is None and server.target.is_onion:
            return
        tls = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if not certificate:
            raise CertificateRefused
        shown = Pin.of(certificate)
        if by_authority:
            self._vouched_for(server, shown)
        elif server.pin is not None:
            if shown.digest != server.pin:
                fault = CertificateFault.NOT_THE_LISTED
                raise self._refusal(server, CertificateProblem(fault, shown.digest))
        else:
            self._judge_own(server, shown)

    def _vouched_for(self, server: NameServer, shown: Pin) -> None:
        """An authority vouches for what is `shown`; where it replaces a pin, twice."""
        if server.label in self._changed and self._pins.get(server) is not None:
            self._require_twice(server, shown)
            self._changed.discard(server.label)
            _log.notice("name_server_has_an_authority_now")
        self._pins.remember_authority(server)

    def _judge_own(self, server: NameServer, shown: Pin) -> None:
        """No authority was asked: it is the certificate that was shown at first, or twice."""
        pin = self._pins.get(server)  # one may have come since this connection began
        if pin is None and not self._pins.is_vouched_for(server):
            self._require_twice(server, shown)
            self._pins.remember(server, shown)
        elif pin is None or shown.digest != pin.digest:
            self._another(server, pin, shown)

    def _another(self, server: NameServer, pin: Pin | None, shown: Pin) -> None:
        """`server` has shown another certificate than at first; raises NotVouchedFor."""
        if pin is not None and pin.expires <= self._clock():
            self._pins.forget(server)
            self._unvouched.discard(server.label)
            _log.notice("name_server_renews_its_certificate")
        elif pin is not None:
            self._changed.add(server.label)
        self._shown[server.label] = shown.digest
        raise NotVouchedFor

    def _require_twice(self, server: NameServer, shown: Pin) -> None:
        """Raises NotVouchedFor unless the connection before this one showed the same."""
        if self._shown.get(server.label) != shown.digest:
            self._shown[server.label] = shown.digest
            raise NotVouchedFor
        del self._shown[server.label]

    def _refusal(self, server: NameServer, problem: CertificateProblem) -> CertificateRefused:
        if server.label not in self.problems:
            _log.warn(
                "certificate_refused",
                problem=problem.fault.value,
                meaning="an exit may be in between, or the server has a new one",
                advice="isoproxy doctor says which server, and what to do",
            )
        self.problems[server.label] = problem
        return CertificateRefused()
