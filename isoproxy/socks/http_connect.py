"""HTTP CONNECT without sockets (RFC 9110 §9.3.6), on the port that speaks SOCKS too.

What goes beyond the RFC is Tor's http-connect specification (proposal 365), as Arti and
tor 0.4.9 have it.

Theory of operation
    h11 parses the request.  Isolation comes as Tor's HTTPTunnelPort takes it: the value
    of `Proxy-Authorization` as user name, that of `X-Tor-Stream-Isolation` (or
    `Tor-Stream-Isolation`) as password, all of them opaque bytes.  The four combinations
    of present and absent headers give four different pairs.  Of a header that is repeated
    every value counts, in order (Tor takes the first).

    Responses to CONNECT name us in `Via`, others in `Server`; `Tor-Capabilities` lists the
    headers of a request that we heed, and a refusal has its kind in `Tor-Request-Failed`.
    OPTIONS tells all that without a connection.

    A browser that was sent here by mistake gets a page that says what this port is; its
    status line is Tor's own, by which old Electrum versions recognise Tor.

Invariants
    The head of a request is bounded, however it is cut into segments; what follows it is the
    application's and waits in `leftover`.
    A web page whose name leads to this machine (DNS rebinding) does not learn what is here:
    a request other than CONNECT is answered only if its Host is this machine, or if it names
    another server as only a browser does that has this port as its HTTP proxy.
"""

from __future__ import annotations

from ipaddress import ip_address
from operator import itemgetter
from typing import Final
from urllib.parse import urlsplit

import h11

from isoproxy import __version__
from isoproxy.errors import OUTCOMES, ErrorKind, LimitExceeded, RemoteProtocolError
from isoproxy.socks import Command

MAX_HEAD: Final = 8192
"""Bytes of request line and headers."""

_Headers = list[tuple[str, str]]

_CAPABILITIES: Final = (
    "Tor-Capabilities",
    "Proxy-Authorization Tor-Stream-Isolation X-Tor-Stream-Isolation",
)
_VIA: Final = [_CAPABILITIES, ("Via", f"tor/1.0 tor-network (isoproxy {__version__})")]
_SERVER: Final = [_CAPABILITIES, ("Server", f"tor/1.0 (isoproxy {__version__})")]
_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>This is isoproxy, a proxy for Tor</title>
<h1>This is isoproxy</h1>
<p>This port is a proxy, not a web site. Nothing of your request was sent anywhere.</p>
<p>Set it as <b>SOCKS5 proxy</b> (or as HTTP proxy for CONNECT) in your program:
user name and password may be anything; each pair gets Tor circuits of its own.</p>
<pre>curl --proxy socks5h://shopping:1@127.0.0.1:9250 https://check.torproject.org/</pre>
</html>
"""
_REASONS: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class HttpConnect:
    """One client's CONNECT request.

    Like `socks5.Server`: call `receive` until it returns true, then read `host`, `port`,
    `username`, `password` and `leftover`, and answer with `succeed` or `refuse`; unless the
    `answer` is there already, to what asks for no connection.
    """

    __slots__ = (
        "_complete",
        "_connection",
        "_is_connect",
        "_received",
        "_require_auth",
        "answer",
        "host",
        "password",
        "port",
        "username",
    )

    command: Final = Command.CONNECT

    def __init__(self, *, require_auth: bool = False) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._require_auth = require_auth
        self._complete = self._is_connect = False
        self._received = 0
        self.answer: bytes | None = None
        self.host = b""
        self.port = 0
        self.username: bytes | None = None
        self.password: bytes | None = None

    @property
    def leftover(self) -> bytes:
        """Bytes behind the head, the application's own."""
        return self._connection.trailing_data[0] if self._complete else b""

    def receive(self, data: bytes) -> bool:
        """Take bytes; True once the request is complete.

        Raises RemoteProtocolError with the answer in `reply`.
        """
        self._connection.receive_data(data)
        self._received += len(data)
        event = self._next_event()
        if event is h11.NEED_DATA:
            return False
        if self._received - len(self._connection.trailing_data[0]) > MAX_HEAD:
            kind = ErrorKind.TOO_LONG  # h11 counts only what is incomplete
            raise LimitExceeded(kind=kind, reply=self.refuse(kind))
        if not isinstance(event, h11.Request):
            raise RemoteProtocolError(reply=self.refuse(ErrorKind.MALFORMED))
        if event.method != b"CONNECT":
            return self._answer_other(event)
        self._is_connect = True
        self._read_isolation(event)
        self._read_authority(event.target)
        self._expect_no_contents()
        self._complete = True
        return True

    def succeed(self) -> bytes:
        return _head("200 OK", _VIA)

    def refuse(self, kind: ErrorKind) -> bytes:
        """A response with the status of `kind` and its explanation as text."""
        outcome = OUTCOMES[kind]
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if self._is_connect:  # only a proxy's client sends that
            headers += [*_VIA, ("Tor-Request-Failed", f"isoproxy/{kind.value}")]
        if outcome.http == 407:
            headers.append(("Proxy-Authenticate", 'Basic realm="isolation tag, any value"'))
        return _response(f"{outcome.http} {_REASONS[outcome.http]}", headers, outcome.text + "\n")

    def _answer_other(self, request: h11.Request) -> bool:
        """OPTIONS has an answer; anything else raises RemoteProtocolError."""
        kind = ErrorKind.COMMAND_NOT_SUPPORTED
        if not _is_for_this_machine(request):
            raise RemoteProtocolError(kind=kind)
        if request.method != b"OPTIONS":
            raise RemoteProtocolError(kind=kind, reply=_friendly_page(request.method == b"HEAD"))
        self._expect_no_contents()
        self.answer = _response("200 OK", [("Allow", "OPTIONS, CONNECT"), *_SERVER], "")
        return True

    def _expect_no_contents(self) -> None:
        """No CONNECT or OPTIONS has contents: whose would the next bytes be?"""
        if not isinstance(self._next_event(), h11.EndOfMessage):
            raise RemoteProtocolError(reply=self.refuse(ErrorKind.MALFORMED))

    def _next_event(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            too_long = error.error_status_hint == 431
            kind = ErrorKind.TOO_LONG if too_long else ErrorKind.MALFORMED
            failure = LimitExceeded if too_long else RemoteProtocolError
            raise failure(kind=kind, reply=self.refuse(kind)) from None

    def _read_isolation(self, request: h11.Request) -> None:
        logins: list[bytes] = []
        tags: list[tuple[bytes, bytes]] = []
        for name, value in request.headers:
            if name == b"proxy-authorization":
                logins.append(value)
            elif name in (b"x-tor-stream-isolation", b"tor-stream-isolation"):
                tags.append((name, value))
        if logins:
            self.username = b"\x00".join(logins)
        if tags:
            tags.sort(key=itemgetter(0))  # which of the two names came first says nothing
            self.password = b"\x00".join(name + b"\x00" + value for name, value in tags)
        if self._require_auth and not tags and all(map(_says_nobody, logins)):
            kind = ErrorKind.AUTH_REQUIRED
            raise RemoteProtocolError(kind=kind, reply=self.refuse(kind))

    def _read_authority(self, target: bytes) -> None:
        host, colon, port = target.rpartition(b":")
        is_port = port.isdigit() and len(port) <= 5 and 0 < int(port) <= 0xFFFF
        if not colon or not host or not is_port:
            raise RemoteProtocolError(reply=self.refuse(ErrorKind.MALFORMED))
        self.host, self.port = host, int(port)


def _says_nobody(authorization: bytes) -> bool:
    """Whether it opens a handshake, in the same words whoever the client is."""
    return authorization.partition(b" ")[0].lower() in (b"ntlm", b"negotiate")


def _is_for_this_machine(request: h11.Request) -> bool:
    if not request.target.startswith((b"/", b"*")):
        return True  # a page cannot make its browser send that; a proxy setting does
    hosts = [value for name, value in request.headers if name == b"host"]
    return all(map(_is_loopback, hosts))  # HTTP/1.0 may have none, and no browser is without


def _is_loopback(authority: bytes) -> bool:
    try:
        host = urlsplit("//" + authority.decode("ascii")).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _friendly_page(head_only: bool) -> bytes:
    """What a browser sees that takes this port for a web server."""
    headers = [("Content-Type", "text/html; charset=utf-8"), *_SERVER]
    return _response("501 Tor is not an HTTP Proxy", headers, "" if head_only else _PAGE)


def _response(status: str, headers: _Headers, text: str) -> bytes:
    body = text.encode()
    length = ("Content-Length", str(len(body)))
    closing = [length, ("Cache-Control", "no-store"), ("Connection", "close")]
    return _head(status, headers + closing) + body


def _head(status: str, headers: _Headers) -> bytes:
    lines = [f"HTTP/1.0 {status}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(line + "\r\n" for line in lines).encode() + b"\r\n"
