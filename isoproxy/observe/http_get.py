"""HTTP for looking, without sockets: GET and HEAD of a few fixed paths (RFC 9110, RFC 9112).

Theory of operation
    h11 parses, `judge` decides.  What is judged, in this order: is this connection meant
    for us (`Host`), does it come from a page of ours or from no page at all
    (`Sec-Fetch-Site`), does it only want to look (method, no contents), is there such a
    thing (the whole request target).  Whatever is refused ends the connection.

    A web site that a browser has open can make it connect to the loopback interface, and
    can let its own name resolve to it (DNS rebinding).  Such a request bears the site's
    name in `Host`, so only names that nobody can point elsewhere are taken: `localhost`
    and literals of the loopback networks.

Invariants
    Nothing but GET and HEAD is ever handed on, so no request can change anything.  The
    head of a request is bounded; contents are refused unread.  Every response carries
    `HEADERS`, whatever its status.  No response repeats a byte of the request.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

import h11

MAX_HEAD: Final = 8192
"""Bytes of request line and headers."""

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "img-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)

HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)

TEXT: Final = "text/plain; charset=utf-8"
_HTTP_PORT: Final = 80
_HOST: Final = re.compile(
    rb"(?:(?P<name>localhost)|(?P<v4>[0-9.]{7,15})|\[(?P<v6>[0-9a-f:]{2,39})\])"
    rb"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_OUR_PAGES: Final = frozenset({b"same-origin", b"none"})

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Hosts:
    """Which `Host` headers are ours: loopback, and `port`.

    `port` is None at a unix socket, which forwarders (ssh -L, socat) bring to ports of
    their users' choice.
    """

    port: int | None

    def include(self, host: bytes) -> bool:
        """Whether a request for `host` is meant for us."""
        match = _HOST.fullmatch(host)
        if match is None or not (match["name"] or _is_loopback(match["v4"], match["v6"])):
            return False
        return self.port is None or self.port == int(match["port"] or _HTTP_PORT)


def _is_loopback(v4: bytes | None, v6: bytes | None) -> bool:
    try:
        if v4 is not None:
            return IPv4Address(v4.decode("ascii")).is_loopback
        return v6 is not None and IPv6Address(v6.decode("ascii")) == IPv6Address("::1")
    except AddressValueError:
        return False


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back; `allow` names the methods after a 405."""

    content_type: str
    body: bytes
    status: int = 200
    allow: str = ""

    @classmethod
    def refusal(cls, status: int, text: str, allow: str = "") -> Response:
        """A status that ends the connection, and why, for a person."""
        return cls(TEXT, text.encode() + b"\n", status, allow)


def judge(request: h11.Request, hosts: Hosts, paths: Collection[str]) -> Response | None:
    """Why `request` is refused, or None if it may be answered."""
    headers = request.headers
    if not all(map(hosts.include, _values(headers, b"host"))) or not _values(headers, b"host"):
        return Response.refusal(421, "open this page as http://localhost:PORT/")
    if not _OUR_PAGES.issuperset(_values(headers, b"sec-fetch-site")):
        return Response.refusal(403, "other pages may not look; type the address instead")
    if request.method not in (b"GET", b"HEAD"):
        return Response.refusal(405, "this is for looking only", allow="GET, HEAD")
    if any(value != b"0" for value in _values(headers, b"content-length")):
        return Response.refusal(413, "requests have no contents here")
    if _values(headers, b"transfer-encoding") or _values(headers, b"upgrade"):
        return Response.refusal(400, "requests have no contents here")
    if request.target.decode("ascii", "replace") not in paths:
        return Response.refusal(404, "there is no such page; the dashboard is at /")
    return None


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [bytes(value) for name, value in headers if name == wanted]


class Ended(Enum):
    """The client has nothing more to ask."""

    ENDED = "ended"


class HttpGet:
    """One connection: `receive` bytes, take `next_request`, and `answer` it.

    `hosts` are ours; `paths` are all there is.
    """

    def __init__(self, hosts: Hosts, paths: Collection[str]) -> None:
        self._hosts: Final = hosts
        self._paths: Final = paths
        self._connection: Final = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_only = False

    def receive(self, data: bytes) -> None:
        """Take bytes, none of them at the end; call it only after `next_request` was None."""
        self._connection.receive_data(data)

    def next_request(self) -> str | Response | Ended | None:
        """The path of the next request, which `answer` must follow; None wants more bytes.

        A Response is the refusal to be passed to `answer`; the connection ends with it.
        """
        connection = self._connection
        self._head_only = False
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return None
            if not isinstance(event, h11.Request):
                return Ended.ENDED
            self._head_only = event.method == b"HEAD"
            refused = judge(event, self._hosts, self._paths)
            if refused is None:
                connection.next_event()  # the end of a message without contents
        except h11.RemoteProtocolError as error:
            return Response.refusal(error.error_status_hint, "this is no request that we read")
        return refused if refused is not None else event.target.decode("ascii")

    def answer(self, response: Response) -> tuple[bytes, bool]:
        """The bytes of `response`, and whether another request may follow it."""
        connection = self._connection
        headers = [
            *HEADERS,
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
        ]
        if response.allow:
            headers.append(("Allow", response.allow))
        if response.status != 200:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=response.status, headers=headers)
        sent = connection.send(head) or b""
        if not self._head_only:
            sent += connection.send(h11.Data(data=response.body)) or b""
        sent += connection.send(h11.EndOfMessage()) or b""
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return sent, False
        connection.start_next_cycle()
        return sent, True
