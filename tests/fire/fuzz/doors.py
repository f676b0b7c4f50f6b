"""What clients say at the door, and what Tor's SocksPort says: SOCKS and HTTP CONNECT.

And what browsers, and whoever uses them, say to the dashboard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from isoproxy.errors import ErrorKind, LimitExceeded, RemoteProtocolError
from isoproxy.front.judgement import ClientHandshake, FinalReply, HandshakeRule, ProxyRequest
from isoproxy.isolation import Isolator, ListenerRule, own_group
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.observe.http_get import Ended, Hosts, HttpGet, Response
from isoproxy.socks import Client, Command, Server
from isoproxy.socks.http_connect import MAX_HEAD, HttpConnect
from isoproxy.socks.server import MAX_LEFTOVER
from tests.fire.fuzz.target import FuzzTarget, pieces

_REMOTE: Final = (RemoteProtocolError, LimitExceeded)
_ISOLATOR: Final = Isolator()
_RULE: Final = HandshakeRule(ListenerRule(own_group("fuzz")), top_levels=TopLevels())
_SOCKS5: Final = b"\x05\x02\x00\x02\x01\x01u\x01p\x05\x01\x00\x03\x06a.test\x00\x50early"
_SOCKS4A: Final = b"\x04\x01\x00\x50\x00\x00\x00\x01user\x00a.test\x00early"
_HTTP: Final = (
    b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic dTpw\r\n"
    b"X-Tor-Stream-Isolation: tag\r\n\r\nearly"
)

_LOOK: Final = b"GET / HTTP/1.1\r\nHost: localhost:80\r\n\r\nHEAD / HTTP/1.1\r\nHost: [::1]\r\n\r\n"


class _Codec(Protocol):
    def receive(self, data: bytes) -> object: ...


def _outcome(
    codec: _Codec, parts: Iterable[bytes], found: Callable[[object], object]
) -> tuple[object, ErrorKind | None, RemoteProtocolError | None]:
    """What a codec made of the parts: the result, or how it refused them."""
    result: object = None
    try:
        for part in parts:
            if result := found(codec.receive(part)) or None:
                break
    except RemoteProtocolError as error:
        return result, error.kind, error
    return result, None, None


def _whole_and_in_pieces(
    make: Callable[[], _Codec], data: bytes, found: Callable[[object], object]
) -> None:
    whole = _outcome(make(), [data[1:]] if data[1:] else [], found)
    parts = _outcome(make(), pieces(data), found)
    assert whole[:2] == parts[:2] or ErrorKind.TOO_LONG in (whole[1], parts[1]), (whole, parts)
    if whole[2] is not None:
        raise whole[2]


def _server(data: bytes) -> None:
    _whole_and_in_pieces(lambda: Server(extended_errors=True), data, lambda request: request)
    server = Server()
    for part in pieces(data):
        request = server.receive(part)
        assert len(server.leftover) <= MAX_LEFTOVER
        if request is not None:
            assert len(request.host) <= 255
            assert 0 <= request.port <= 0xFFFF


def _client(data: bytes) -> None:
    def make() -> Client:
        return Client(Command.CONNECT, b"a.test", 80, username=b"u", password=b"p")

    client, reply = make(), None
    for part in pieces(data):
        assert client.wanted >= 0
        if (reply := client.receive(part)) is not None:
            break
    if reply is not None:
        assert reply.host is not None


def _http(data: bytes) -> None:
    _whole_and_in_pieces(HttpConnect, data[:MAX_HEAD], lambda done: done)
    http = HttpConnect()
    for part in pieces(data):
        if http.receive(part):
            assert 0 < http.port <= 0xFFFF
            assert http.host
            break


def _session(data: bytes) -> None:
    def judged(found: object) -> object:
        """A request without its key's object; an answer by its bytes."""
        if isinstance(found, FinalReply):
            return found.reply
        if isinstance(found, ProxyRequest):
            name = found.target.host.rstrip(".")
            assert found.resolve_first or found.target.is_ip or not name.endswith(".bit")
            return found.command, found.target, found.key, found.resolve_first
        return None

    session = ClientHandshake(_RULE, _ISOLATOR, b"client")
    for part in pieces(data):
        result = session.receive(part)
        session.data_to_send()
        if judged(result) is not None:
            break


def _look(data: bytes) -> None:
    """Whatever comes, only what there is is handed on, and a refusal ends it."""
    http = HttpGet(Hosts(80), {"/"})
    for part in pieces(data):
        http.receive(part)
        while (asked := http.next_request()) is not None:
            assert asked == "/" or isinstance(asked, Response | Ended)
            if isinstance(asked, Ended):
                return
            made = asked if isinstance(asked, Response) else Response("text/html", b"page")
            answer, goes_on = http.answer(made)
            assert answer.startswith(b"HTTP/1.1 ")
            if not goes_on:
                return
            assert made.status == 200


def _seeds(*words: bytes) -> list[bytes]:
    return [bytes([size]) + word for word in words for size in (0, 6, 255)]


TARGETS: Final = [
    FuzzTarget("socks5-server", _server, _REMOTE, _seeds(_SOCKS5, _SOCKS4A)),
    FuzzTarget(
        "socks5-client",
        _client,
        (RemoteProtocolError,),
        _seeds(
            b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6),
            b"\x05\x02\x01\x00\x05\x00\x00\x03\x06a.test\x00\x50",
        ),
    ),
    FuzzTarget("http-connect", _http, _REMOTE, _seeds(_HTTP)),
    FuzzTarget("dashboard", _look, (), _seeds(_LOOK)),
    FuzzTarget("session", _session, _REMOTE, _seeds(_SOCKS5, _SOCKS4A, _HTTP)),
]
