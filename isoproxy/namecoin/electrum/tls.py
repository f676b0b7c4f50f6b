"""TLS to Electrum servers: which server has to prove what.

    onion service           encrypted, no check of the name: the address authenticates
    a pin in the list       the certificate's SHA-256 must be the pin
    otherwise               a certificate authority vouches for it, or else, unless one
                            did before, it is the certificate that this server showed at
                            first, over two circuits (both kept in the state directory)

At the first contact an exit could show a certificate of its own.  So one that no authority
vouches for is kept only when a second connection, which has another circuit, shows the same.

A name's value is proven by work, whoever carries it; TLS keeps the exit from reading and
withholding, not from forging.

Invariants
    No host name is looked up and nothing is sent here: this wraps a connected socket.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path
from typing import Final, cast

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.observe.log import logger
from isoproxy.private_file import replace_file

_log = logger("names")
_LIMIT: Final = 1 << 16
_FILE: Final = "name-server-pins.json"
_VOUCHED_FOR: Final = ""
"""In place of a fingerprint, as Electrum leaves the file of such a server empty."""


class CertificateRefused(DialError):
    """The server's certificate is not the one it has to be."""

    def __init__(self) -> None:
        super().__init__(
            "a name server's certificate is not the one it showed before; an exit may be in "
            "between. If the server renewed it, remove its line from name-server-pins.json.",
            kind=ErrorKind.GENERAL_FAILURE,
        )


class NotVouchedFor(CertificateRefused):
    """No authority vouches for the certificate, or it was not seen twice yet; what comes of
    it depends on a further connection, over another circuit."""


class PinStore:
    """Certificates that servers without an authority showed at first, by host:port, and
    which servers an authority vouched for.

    `directory` None keeps them in memory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._path = directory / _FILE if directory is not None else None
        self._pins: dict[str, str] = {}
        if self._path is not None and self._path.exists():
            self._pins = _read_pins(self._path)

    def get(self, server: NameServer) -> bytes | None:
        text = self._pins.get(server.label)
        return bytes.fromhex(text) if text else None

    def is_vouched_for(self, server: NameServer) -> bool:
        """True if an authority vouched for `server` before."""
        return self._pins.get(server.label) == _VOUCHED_FOR

    def remember_authority(self, server: NameServer) -> None:
        """Keep that an authority vouches for `server`."""
        if not self.is_vouched_for(server):
            self.remember(server, b"")

    def remember(self, server: NameServer, digest: bytes) -> None:
        """Keep `digest` for `server`, on disk atomically; the disk is not waited for.

        Where the disk takes nothing it is kept in memory.
        """
        self._pins[server.label] = digest.hex()
        if self._path is None:
            return
        try:
            text = json.dumps(self._pins, indent=1, sort_keys=True)
            replace_file(self._path, text, durable=False)
        except OSError as error:
            _log.warn("certificate_not_stored", problem=error.strerror)


def _read_pins(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_text())
        pins = {str(label): str(pin) for label, pin in data.items()}
        for pin in pins.values():
            bytes.fromhex(pin)
    except (OSError, ValueError, AttributeError):
        return {}
    return pins


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
    """Wraps sockets to servers by the rules above."""

    def __init__(self, pins: PinStore) -> None:
        self._pins = pins
        self._checking: ssl.SSLContext | None = None
        self._encrypting = ssl_context(authorities=False)
        self._unvouched: set[str] = set()
        self._shown: dict[str, bytes] = {}  # once, by servers without a pin

    async def open(
        self, sock: socket.socket, server: NameServer
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Streams over the connected `sock`, which is closed on failure.

        Raises DialError; after NotVouchedFor a new connection over another circuit is worth
        a try, and once more after that.
        """
        if not server.tls:
            return await asyncio.open_connection(sock=sock, limit=_LIMIT)
        pin = server.pin or self._pins.get(server)
        vouched_for = self._pins.is_vouched_for(server)
        by_authority = (pin is None and not server.target.is_onion) and (
            vouched_for or server.label not in self._unvouched
        )
        try:
            context = await self._authorities() if by_authority else self._encrypting
            reader, writer = await _open_tls(sock, context, server.target.host)
        except ssl.SSLCertVerificationError:
            sock.close()
            if vouched_for:
                raise CertificateRefused from None
            self._unvouched.add(server.label)
            raise NotVouchedFor from None
        except OSError:
            sock.close()
            raise DialError(kind=ErrorKind.GENERAL_FAILURE) from None
        except BaseException:
            sock.close()
            raise
        try:
            if by_authority:
                self._pins.remember_authority(server)
            else:
                self._judge(writer, server, pin)
        except CertificateRefused:
            writer.transport.abort()
            raise
        return reader, writer

    async def _authorities(self) -> ssl.SSLContext:
        """The context that checks; reading the authorities' certificates takes a while."""
        if self._checking is None:
            self._checking = await asyncio.to_thread(ssl_context, authorities=True)
        return self._checking

    def _judge(self, writer: asyncio.StreamWriter, server: NameServer, pin: bytes | None) -> None:
        """Raises CertificateRefused unless the certificate shown is the right one."""
        if pin is None and server.target.is_onion:
            return
        tls = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if not certificate:
            raise CertificateRefused
        pin = pin or self._pins.get(server)  # one may have come since this connection began
        digest = hashlib.sha256(certificate).digest()
        if pin is None and not self._pins.is_vouched_for(server):
            self._show(server, digest)
        elif digest != pin:
            raise CertificateRefused

    def _show(self, server: NameServer, digest: bytes) -> None:
        """Keep a certificate that was shown twice in a row; raises NotVouchedFor else."""
        if self._shown.get(server.label) != digest:
            self._shown[server.label] = digest
            raise NotVouchedFor
        del self._shown[server.label]
        self._pins.remember(server, digest)
