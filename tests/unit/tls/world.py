"""A front end that answers TLS, a client, and a site behind a scripted SocksPort."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from isoproxy.errors import ErrorKind
from isoproxy.front.frontend import FrontEnd
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.resolve.answer import Site
from isoproxy.net.target import Target
from isoproxy.socks import Request, Server
from isoproxy.tls.certificates import Issuer
from isoproxy.tls.outcome import TlsOutcome
from isoproxy.tls.termination import Terminator
from tests.kit.onion_address import onion_address
from tests.kit.socks_port import Serve, SocksPort
from tests.unit.front.test_frontend import GREETING, OK, Table, front_end
from tests.unit.tls.shaking import client_context, server_context
from tests.unit.tls.sites import NOW, Party

HOST = "name.bit"
ONION = onion_address(bytes(32))
ROOT = Issuer.root(NOW)
ISSUER = ROOT.intermediate(NOW)


class Refused(Exception):
    """The client was told in SOCKS that there is no stream."""


class OneSite:
    """A name service that knows one site; says under which keys it was asked."""

    def __init__(self, place: str, *tlsa: bytes) -> None:
        self._site = Site(Target(place, 443), tlsa)
        self.keys: list[IsolationKey] = []

    async def site_of(self, target: Target, key: IsolationKey, client: bytes | None) -> Site:
        self.keys.append(key)
        return self._site


def request(host: str, port: int = 443, user: bytes = b"") -> bytes:
    """A SOCKS5 CONNECT, with a user name if there is one."""
    name = host.encode()
    asked = b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2)
    if not user:
        return GREETING + asked
    return b"\x05\x01\x02\x01" + bytes([len(user)]) + user + b"\x01x" + asked


def echoing(shown: Party | None, protocols: Sequence[str] = (), *, cut: bool = False) -> Serve:
    """A site that sends back what comes; over TLS if it has a certificate to show.

    With `cut` it hangs up after the first answer, without a word of TLS.
    """

    async def serve(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        if shown is not None:
            context = server_context(shown.pem)
            if protocols:
                context.set_alpn_protocols(list(protocols))
            with contextlib.suppress(ssl.SSLError):
                await writer.start_tls(context)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            if cut:
                writer.transport.get_extra_info("socket").shutdown(2)
                return

    return serve


def pages(pem: bytes | None) -> Serve:
    """A web site with one page, over TLS with the key and certificates of `pem`."""

    async def serve(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        if pem is None and request.port == 443:
            writer.write(server.refuse(ErrorKind.CONNECTION_REFUSED))
            return
        writer.write(server.succeed())
        with contextlib.suppress(ssl.SSLError, asyncio.IncompleteReadError):
            if pem is not None:
                await writer.start_tls(server_context(pem))
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")
                writer.write(b"Content-Length: 5\r\n\r\nhello")
                await writer.drain()

    return serve


def by_port(answers: dict[int, Serve]) -> Serve:
    """A host whose ports answer differently."""

    async def serve(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        await answers[request.port](request, reader, writer, server)

    return serve


@dataclass
class Conversation:
    """What a client was told: the protocol, the certificate (DER), and the echo."""

    protocol: str | None
    certificate: bytes
    echo: bytes
    tls: str | None = None


@dataclass
class World:
    """All of it, and what was seen of it."""

    front: FrontEnd
    port: SocksPort
    sites: OneSite
    terminator: Terminator

    @property
    def outcomes(self) -> dict[TlsOutcome, int]:
        return dict(self.front.counters.https)

    @property
    def dials(self) -> list[tuple[str, int]]:
        """Where Tor was asked to go."""
        return [(one.host.decode(), one.port) for one in self.port.requests]

    async def streams(
        self, host: str = HOST, user: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An open stream to port 443 of `host`."""
        endpoint = self.front.listeners["test"].settings.endpoint
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(request(host, user=user))
        methods = await reader.readexactly(2)
        login = await reader.readexactly(2) if methods == b"\x05\x02" else b""
        answer = await reader.readexactly(len(OK) - 2)
        if answer != OK[2:]:
            writer.transport.abort()
            raise Refused
        assert login in (b"", b"\x01\x00")
        return reader, writer

    async def talk(
        self,
        host: str = HOST,
        *,
        protocols: Sequence[str] = (),
        server_name: str | None = HOST,
        user: bytes = b"",
        root: Issuer | None = ROOT,
        shape: Callable[[ssl.SSLContext], None] = lambda context: None,
        ends: bool = True,
    ) -> Conversation:
        """Say something to the site and hear the echo; raises ssl.SSLError."""
        context = client_context(root)
        if server_name is None:
            context.check_hostname = False
        if protocols:
            context.set_alpn_protocols(list(protocols))
        shape(context)
        reader, writer = await self.streams(host, user)
        try:
            async with asyncio.timeout(20):
                await writer.start_tls(context, server_hostname=server_name)
                tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
                writer.write(b"hello")
                echo = await reader.readexactly(5)
                certificate = tls.getpeercert(binary_form=True)
                assert certificate is not None
                return Conversation(tls.selected_alpn_protocol(), certificate, echo, tls.version())
        finally:
            writer.transport.abort()

    async def raw(self, data: bytes) -> bytes:
        """All that is answered to a client that says `data` and waits."""
        reader, writer = await self.streams()
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def https_world(sites: OneSite, serve: Serve) -> AsyncIterator[World]:
    """A world whose one listener answers TLS for the one name that it knows."""
    async with SocksPort(serve) as port, front_end(port, names=Table({HOST: "192.0.2.7"})) as front:
        terminator = Terminator(front.dialer, front.isolator, sites)
        terminator.issuer = ISSUER
        front.services = replace(front.services, https=terminator)
        settings = front.listeners["test"].settings
        front.close("test")
        rule = replace(settings.rule, tls=True)
        front.open(replace(settings, rule=rule))
        yield World(front, port, sites, terminator)
