"""A stream to the HTTPS server of a `.bit` name: TLS with the client, and with the site.

Theory of operation
    The stream to the site stands when this begins.  The client's ClientHello is read, then
    TLS is spoken with the site, offering the protocols (ALPN) that the client offers and we
    carry; the site's choice is what the client is offered in turn.  So no HTTP is read here.
    What makes a site the right one:

        TLSA records        its certificate is what they say (`tlsa`)
        an onion service    Tor authenticates and encrypts; if port 443 is closed there,
                            the stream to port 80 is carried as it is
        neither             refused, and nothing is dialled

    A client whose site is not right gets a TLS alert, and no certificate.

Invariants
    Nothing of the client's leaves before the site is right.  Without TLS to the site bytes
    leave over no circuit but one to an onion service.  The server that the client asks for
    is the one that its stream was opened for.  Certificates are kept for one isolation key,
    and end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from isoproxy.errors import DialError, ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.isolation import APP, IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Site
from isoproxy.namecoin.resolve.cache import KeyedCache
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.tls.certificates import Issuer, Leaf
from isoproxy.tls.client_hello import ClientHello, ClientHelloReader
from isoproxy.tls.contexts import chain_of, server_context, site_context
from isoproxy.tls.ends import End, PlainEnd, TlsEnd
from isoproxy.tls.outcome import TlsOutcome, alert
from isoproxy.tls.tlsa import Associations
from isoproxy.tor.dialer import Dialer

PLAIN_PORT: Final = 80
HALF_CLOSED_S: Final = 30.0
"""Seconds for which one direction may go on alone without a byte."""
_LEAF_S: Final = 3600.0
_PLAIN: Final = b"http/1.1"
_CARRIED: Final = (b"h2", _PLAIN)
_PER_KEY, _TOTAL = 64, 4096
_CLOSED: Final = frozenset(
    {ErrorKind.CONNECTION_REFUSED, ErrorKind.GENERAL_FAILURE, ErrorKind.HOST_UNREACHABLE}
)
"""What Tor may say of a port that an onion service does not have."""

_log: Final = logger("tls")


@dataclass(slots=True, eq=False)
class SiteFlow:
    """One stream to `target`, a name under bit, and what comes of it.

    `client_id` and `listener` say for whom and where the client came in.  `site` is what
    the name leads to.  `upstream` is the stream there, None where none may be opened;
    `is_plain` says that it leads to port 80 of an onion service.
    """

    target: Target
    key: IsolationKey
    client_id: bytes
    listener: str
    site: Site
    upstream: socket.socket | None = None
    is_plain: bool = False
    outcome: TlsOutcome | None = None
    bytes_up: int = field(default=0, init=False)
    bytes_down: int = field(default=0, init=False)


class _Refused(Exception):
    """The stream ends here, with this outcome."""

    def __init__(self, outcome: TlsOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class Sites(Protocol):
    """Where the HTTPS servers of names are."""

    async def site_of(self, target: Target, key: IsolationKey, client: bytes | None) -> Site:
        """The site at `target`, looked up under `key` for a client field; NamingError."""
        ...


class Terminator:
    """Ends the TLS of clients.  `issuer` signs what they are shown; it may be replaced."""

    def __init__(self, dialer: Dialer, isolator: Isolator, sites: Sites) -> None:
        self.issuer: Issuer | None = None
        self._dialer: Final = dialer
        self._sites: Final = sites
        self._leaves: Final[KeyedCache[str, Leaf]] = KeyedCache(per_key=_PER_KEY, total=_TOTAL)
        isolator.on_new_epoch(self._leaves.clear)
        isolator.on_renewal(lambda: self._leaves.keep(isolator.is_current))
        self._isolator: Final = isolator

    async def open(
        self, target: Target, key: IsolationKey, client_id: bytes, listener: str
    ) -> SiteFlow:
        """Look a site up and dial it, where that is allowed; raises NamingError, DialError.

        Port 443 of an onion service is tried first, then port 80.
        """
        site = await self._sites.site_of(target, key, client_id)
        flow = SiteFlow(target, key, client_id, listener, site)
        if not (site.target.is_onion or site.tlsa):
            return flow
        try:
            flow.upstream = await self._dial(flow, site.target)
        except DialError as error:
            if not site.target.is_onion or error.kind not in _CLOSED:
                raise
            flow.upstream, flow.is_plain = await self._dial(flow, _plain(site.target)), True
        return flow

    async def carry(
        self,
        client: socket.socket,
        early: bytes,
        flow: SiteFlow,
        *,
        handshake_s: float,
        idle_s: float,
    ) -> None:
        """Carry one stream to its end; `early` is what the client has said already.

        `handshake_s` is the time (s) for each handshake, `idle_s` that without a byte.
        The caller closes both sockets.
        """
        try:
            with contextlib.suppress(OSError, TimeoutError):
                ours, theirs = await self._shake_hands(client, early, flow, handshake_s)
                await _join(ours, theirs, flow, idle_s)
        except _Refused as refused:
            flow.outcome = refused.outcome
            _log.info("https_refused", reason=refused.outcome.value)
            if said := alert(refused.outcome):
                with contextlib.suppress(OSError):
                    client.send(said)

    async def _shake_hands(
        self, client: socket.socket, early: bytes, flow: SiteFlow, seconds: float
    ) -> tuple[End, End]:
        hello, received = await _read_hello(client, early, seconds)
        if hello.server_name != flow.target.host:
            raise _Refused(TlsOutcome.SERVER_NAME)
        theirs, protocols, outcome = await self._meet_site(flow, hello)
        context = server_context(self._leaf(flow), protocols)
        ours = TlsEnd(client, context, server_side=True, received=received)
        try:
            async with asyncio.timeout(seconds):
                await ours.handshake()
        except OSError:  # a timeout is one
            raise _Refused(TlsOutcome.CLIENT_FAILED) from None
        flow.outcome = outcome
        return ours, theirs

    async def _meet_site(
        self, flow: SiteFlow, hello: ClientHello
    ) -> tuple[End, tuple[bytes, ...], TlsOutcome]:
        """The site's end, what is spoken there, and why it is the right one."""
        if flow.upstream is None:
            raise _Refused(TlsOutcome.NO_RECORD)
        associations = Associations(flow.site.tlsa)
        if flow.site.tlsa and not associations:
            raise _Refused(TlsOutcome.UNUSABLE_RECORD)
        offered = tuple(one for one in _CARRIED if one in hello.protocols)
        if not flow.is_plain:
            end = await self._speak_tls(flow, offered, associations)
            if end is not None:
                chosen = end.tls.selected_alpn_protocol()
                why = TlsOutcome.RECORD if associations else TlsOutcome.ONION
                return end, () if chosen is None else (chosen.encode(),), why
            await self._dial_plain(flow)
        if associations:  # the name wants a certificate, and there is none
            raise _Refused(TlsOutcome.SITE_FAILED)
        plain = tuple(one for one in offered if one == _PLAIN)
        return PlainEnd(flow.upstream), plain, TlsOutcome.ONION

    async def _speak_tls(
        self, flow: SiteFlow, offered: tuple[bytes, ...], associations: Associations
    ) -> TlsEnd | None:
        """TLS to the right site; None where port 443 of an onion service turns out closed."""
        assert flow.upstream is not None
        asks = associations.asks_authorities
        make = partial(site_context, offered, asks_authorities=asks)
        context = await asyncio.to_thread(make) if asks else make()  # which reads files
        end = TlsEnd(flow.upstream, context, host=flow.target.host)
        try:
            async with asyncio.timeout(self._dialer.settings.timeout_s):
                await end.handshake()
        except ssl.SSLCertVerificationError:
            raise _Refused(TlsOutcome.NO_PUBLIC_AUTHORITY) from None
        except OSError:
            if flow.site.target.is_onion and not end.has_heard:
                return None
            raise _Refused(TlsOutcome.SITE_FAILED) from None
        if associations:
            chain = chain_of(end.tls, verified=asks)
            if not associations.accept(chain, flow.target.host, datetime.now(UTC)):
                raise _Refused(TlsOutcome.WRONG_CERTIFICATE)
        return end

    async def _dial_plain(self, flow: SiteFlow) -> None:
        """Tor tells of a closed port of an onion service by ending the stream at once."""
        assert flow.upstream is not None
        flow.upstream.close()
        try:
            flow.upstream = await self._dial(flow, _plain(flow.site.target))
        except IsoproxyError:
            raise _Refused(TlsOutcome.SITE_FAILED) from None

    async def _dial(self, flow: SiteFlow, place: Target) -> socket.socket:
        return await self._dialer.connect(
            flow.key, APP, place, client=flow.client_id, listener=flow.listener
        )

    def _leaf(self, flow: SiteFlow) -> Leaf:
        assert self.issuer is not None, "a listener answers TLS where there is an issuer"
        key, host, now = flow.key, flow.target.host, asyncio.get_running_loop().time()
        if (known := self._leaves.get(key, host, now)) is not None:
            return known.value
        leaf = self.issuer.leaf(host, datetime.now(UTC))
        if self._isolator.is_current(key):
            self._leaves.put(key, host, leaf, now + _LEAF_S)
        return leaf


def _plain(place: Target) -> Target:
    return Target(place.host, PLAIN_PORT)


async def _read_hello(
    client: socket.socket, early: bytes, seconds: float
) -> tuple[ClientHello, bytes]:
    """The ClientHello, and all that was read."""
    loop, reader, data = asyncio.get_running_loop(), ClientHelloReader(), early
    try:
        async with asyncio.timeout(seconds):
            while True:
                data = data or await loop.sock_recv(client, 4096)
                if not data:
                    raise _Refused(TlsOutcome.SILENT)
                if (hello := reader.receive(data)) is not None:
                    return hello, bytes(reader.received)
                data = b""
    except RemoteProtocolError:
        raise _Refused(TlsOutcome.NOT_TLS) from None
    except OSError:
        raise _Refused(TlsOutcome.SILENT) from None


async def _join(client: End, site: End, flow: SiteFlow, idle_s: float) -> None:
    """Pass on what either says until both have ended, or neither says anything for `idle_s`."""
    loop, silence_s = asyncio.get_running_loop(), idle_s

    async def pass_along(source: End, sink: End, *, up: bool) -> None:
        nonlocal silence_s
        while data := await source.read():
            await sink.write(data)
            if up:
                flow.bytes_up += len(data)
            else:
                flow.bytes_down += len(data)
            clock.reschedule(loop.time() + silence_s)
        await sink.end(is_cut=source.is_cut)
        silence_s = min(silence_s, HALF_CLOSED_S)
        clock.reschedule(loop.time() + silence_s)

    async with asyncio.timeout(idle_s) as clock:
        pumps = [
            asyncio.ensure_future(pass_along(client, site, up=True)),
            asyncio.ensure_future(pass_along(site, client, up=False)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
