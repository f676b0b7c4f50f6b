"""What one client wants, decided without sockets.

Theory of operation
    The first byte tells the protocol: 05 and 04 are SOCKS, a letter is HTTP, 16 (hex) is
    a TLS hello that somebody sent to the wrong port.  Once the request is complete the
    handshake judges it: it derives the isolation key, validates the target, answers what
    can be answered here (RESOLVE of a literal address), and returns a `ProxyRequest` for the rest.

Invariants
    A request always carries a key.  A request never carries a name that may not be sent to
    Tor, unless it is a name that Namecoin resolves (`resolve_first`).  A request that is refused
    becomes an `FinalReply`, a broken protocol a RemoteProtocolError; both hold the bytes that
    tell the client in its own protocol.

Specification: RFC 1928 §4, SOCKS4a, RFC 9110 §9.3.6 (CONNECT), Tor's proposal 304 (errors).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol

from isoproxy.errors import ErrorKind, LocalProtocolError, PolicyRefusal, RemoteProtocolError
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    accepts_username,
)
from isoproxy.namecoin.value.name import Route, TopLevels
from isoproxy.net.target import Target
from isoproxy.socks import Address, Command, Request, Server, Version
from isoproxy.socks.http_connect import HttpConnect

_TLS_HANDSHAKE: Final = 0x16
_TLS_ALERT: Final = bytes.fromhex("15030100020228")
"""A fatal handshake_failure alert (RFC 8446 §6.2)."""
_HTTPS_PORT: Final = 443
_UNRESOLVED: Final = TopLevels().without_namecoin()


@dataclass(frozen=True, slots=True)
class HandshakeRule:
    """What a listener demands of its clients; `top_levels` says who resolves a name.

    With `proxy_auth_challenge` HTTP clients without credentials are asked for some.  With
    `tls` streams to the HTTPS servers of names under bit are answered with TLS.
    """

    listener: ListenerRule
    require_auth: bool = False
    proxy_auth_challenge: bool = False
    extended_errors: bool = True
    unix: bool = False
    top_levels: TopLevels = _UNRESOLVED
    tls: bool = False


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A judged request: what to do, under which key.

    `stream` is the tuple the key was derived from, kept for a later epoch.  `tls` says that
    the client is answered with TLS.
    """

    command: Command
    target: Target
    key: IsolationKey
    stream: IsolationTuple
    resolve_first: bool
    tls: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class FinalReply:
    """A request that needs nobody else: write `reply` and close.

    `kind` says why it was refused; None when it was answered.
    """

    reply: bytes
    command: Command
    kind: ErrorKind | None = None


def judge(
    rule: HandshakeRule,
    isolator: Isolator,
    command: Command,
    target: Target,
    stream: IsolationTuple,
) -> ProxyRequest:
    """The request of a client that is known, with the key of `stream`.

    Raises PolicyRefusal(NAME_NEVER_SENT_TO_TOR).
    """
    route = Route.TOR if target.is_ip else rule.top_levels.route(target.host)
    if route is Route.REFUSE:
        raise PolicyRefusal(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
    key = isolator.key_for(rule.listener, stream)
    ours = route is Route.NAMECOIN
    secure = rule.tls and ours and command is Command.CONNECT and _is_https(target)
    return ProxyRequest(command, target, key, stream, ours, secure)


class Answers(Protocol):
    """How a client is told what became of its request; see `ClientHandshake`."""

    @property
    def leftover(self) -> bytes: ...

    def succeed(self) -> bytes: ...

    def resolved(self, address: Address) -> bytes: ...

    def resolved_name(self, name: bytes) -> bytes: ...

    def refuse(self, kind: ErrorKind) -> bytes: ...


class ClientHandshake:
    """The handshake of one client; `client` is its field of the isolation tuple.

    Call `receive`, write `data_to_send()`, and once there is a request fulfil it and answer
    with one of `succeed`, `resolved`, `resolved_name`, `refuse`.
    """

    __slots__ = ("_client", "_http", "_isolator", "_rule", "_socks", "protocol")

    def __init__(self, rule: HandshakeRule, isolator: Isolator, client: bytes | None) -> None:
        self._rule = rule
        self._isolator = isolator
        self._client = client
        self._socks: Server | None = None
        self._http: HttpConnect | None = None
        self.protocol: ClientProtocol | None = None

    @property
    def leftover(self) -> bytes:
        """The application's bytes that came with the request."""
        if self._http is not None:
            return self._http.leftover
        return self._socks.leftover if self._socks is not None else b""

    def data_to_send(self) -> bytes:
        """What must be written now, in one write."""
        return self._socks.data_to_send() if self._socks is not None else b""

    def receive(self, data: bytes) -> ProxyRequest | FinalReply | None:
        """Take bytes; returns the request, or the answer, once the request is complete.

        Raises RemoteProtocolError: write its `reply` and close.
        """
        if self._socks is None and self._http is None:
            self._choose_protocol(data[0])
        if self._http is not None:
            if not self._http.receive(data):
                return None
            http = self._http
            self.protocol = ClientProtocol.HTTP_CONNECT
            if http.answer is not None:
                return FinalReply(http.answer, http.command)
            return self._judge(http.command, http.host, http.port, http.username, http.password)
        if self._socks is None:
            return None
        request = self._socks.receive(data)
        if request is None:
            return None
        self._note_protocol(request)
        return self._judge(
            request.command, request.host, request.port, request.username, request.password
        )

    def succeed(self) -> bytes:
        """The answer to a CONNECT whose stream is open."""
        if self._http is not None:
            return self._http.succeed()
        return self._expect_socks().succeed()

    def resolved(self, address: Address) -> bytes:
        """The answer to a RESOLVE."""
        return self._expect_socks().resolved(address)

    def resolved_name(self, name: bytes) -> bytes:
        """The answer to a RESOLVE_PTR."""
        return self._expect_socks().resolved_name(name)

    def refuse(self, kind: ErrorKind) -> bytes:
        """The answer to a request that was not fulfilled, or to a handshake that took too long."""
        if self._http is not None:
            return self._http.refuse(kind)
        return self._socks.refuse(kind) if self._socks is not None else b""

    def _choose_protocol(self, first: int) -> None:
        if first == _TLS_HANDSHAKE:
            raise RemoteProtocolError(reply=_TLS_ALERT)
        rule = self._rule
        if chr(first).isascii() and chr(first).isalpha():
            self._http = HttpConnect(require_auth=rule.require_auth or rule.proxy_auth_challenge)
            return
        self._socks = Server(
            require_auth=rule.require_auth,
            extended_errors=rule.extended_errors,
            unix=rule.unix,
            accepts_username=accepts_username,
        )

    def _note_protocol(self, request: Request) -> None:
        old = request.version is Version.SOCKS4
        self.protocol = ClientProtocol.SOCKS4 if old else ClientProtocol.SOCKS5

    def _judge(
        self,
        command: Command,
        host: bytes,
        port: int,
        username: bytes | None,
        password: bytes | None,
    ) -> ProxyRequest | FinalReply:
        try:
            target = Target.parse(host, port)
        except PolicyRefusal as error:
            return self._refusal(command, error.kind)
        if command is Command.RESOLVE and target.is_ip:
            reply = self.data_to_send() + self.resolved(ip_address(target.host))
            return FinalReply(reply, command)
        if command is Command.RESOLVE_PTR and not target.is_ip:
            return self._refusal(command, ErrorKind.NAME_SYNTAX)
        assert self.protocol is not None
        dest = target.host.encode("ascii")
        stream = IsolationTuple(self._client, self.protocol, username, password, dest, port)
        try:
            return judge(self._rule, self._isolator, command, target, stream)
        except PolicyRefusal as error:
            return self._refusal(command, error.kind)

    def _refusal(self, command: Command, kind: ErrorKind) -> FinalReply:
        return FinalReply(self.data_to_send() + self.refuse(kind), command, kind)

    def _expect_socks(self) -> Server:
        if self._socks is None:
            raise LocalProtocolError("HTTP has no such answer")
        return self._socks


def _is_https(target: Target) -> bool:
    """Whether it is the HTTPS server of a name under bit: of `name.bit.onion` it is not."""
    return target.port == _HTTPS_PORT and target.host.endswith(".bit")
