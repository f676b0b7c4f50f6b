"""What a control port says, to the front end and to the controller of Tor's own streams."""

from __future__ import annotations

from typing import Final

from isoproxy.errors import ErrorKind, LimitExceeded, RemoteProtocolError
from isoproxy.net.target import Target
from isoproxy.sharing import SharingTable
from isoproxy.tor.control.events import parse_event
from isoproxy.tor.control.wire import MAX_LINE, LineSplitter, ReplyAssembler, quote, unquote
from stemns_plugin import grammar
from stemns_plugin.streams import Close, LookUp, Redirect, Streams
from stemns_plugin.suffix_router import SuffixRouter
from tests.fire.fuzz.target import FuzzTarget, pieces

_REMOTE: Final = (RemoteProtocolError, LimitExceeded)
_STREAM: Final = (
    b'650 STREAM 7 NEW 0 name.bit:80 SOURCE_ADDR=127.0.0.1:40000 PURPOSE=USER SOCKS_USERNAME="u"'
    b' SOCKS_PASSWORD="p" CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=0 SESSION_GROUP=-6'
    b" ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR,SESSION_GROUP,NYM_EPOCH"
)
_EVENTS: Final = (
    b"250-version=0.4.9.1\r\n250 OK\r\n"
    b"650 CIRC 5 BUILT $" + b"A" * 40 + b"~exit BUILD_FLAGS=NEED_CAPACITY PURPOSE=GENERAL"
    b' SOCKS_USERNAME="<torS0X>0" SOCKS_PASSWORD="ab\\303\\251"\r\n'
    b"650 SIGNAL NEWNYM\r\n"
    b'650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=50 TAG=loading SUMMARY="Loading"\r\n'
    b"250+circuit-status=\r\n1 BUILT\r\n.\r\n250 OK\r\n"
)


def _wire(data: bytes) -> None:
    splitter, whole, assembler = LineSplitter(), LineSplitter(), ReplyAssembler()
    lines = whole.feed(data[1:])
    assert lines == [line for part in pieces(data) for line in splitter.feed(part)]
    assert unquote(quote(data)) == data
    for line in lines:
        assert len(line) <= MAX_LINE
        reply = assembler.feed(line)
        if reply is not None:
            parse_event(reply)
            for text in reply.lines:
                unquote(text)


def _grammar(data: bytes) -> None:
    lines = data.split(b"\r\n")
    for line in lines:
        grammar.stream_of(line)
        event = grammar.parse_stream_event(line)
        if event is not None:
            again = grammar.parse_stream_event(grammar.write_stream_event(event, b"NEW"))
            assert again is not None
            assert (again.id, again.host, again.port) == (event.id, event.host, event.port)
            assert (again.fields, again.isolated) == (event.fields, event.isolated)
    grammar.parse_listing(lines)
    grammar.parse_mappings(lines)


def _streams(data: bytes) -> None:
    """Events, then a listing, in turns; every action is about a stream that Tor listed."""
    streams = Streams(SuffixRouter({}).is_ours, SharingTable())
    for number, part in enumerate(data.split(b"\n\n")):
        lines = part.split(b"\r\n")
        for line in lines:
            streams.on_line(line)
        if not streams.wants_listing:
            continue
        streams.begin_listing()
        actions = streams.on_listing(lines, [])
        for action in actions:
            if isinstance(action, LookUp):
                target = Target.parse(b"a.test", 80) if number % 2 else Target.parse("192.0.2.1", 1)
                for done in streams.on_found(action.stream, target):
                    assert isinstance(done, Redirect | Close)
                assert not streams.on_failed(action.stream, ErrorKind.NAME_ABSENT)


_LISTED: Final = _STREAM.replace(b" NEW ", b" CONTROLLER_WAIT ")

TARGETS: Final = [
    FuzzTarget("control-wire", _wire, _REMOTE, [bytes([n]) + _EVENTS for n in (0, 10, 255)]),
    FuzzTarget("control-grammar", _grammar, (), [_STREAM, _LISTED, b"7 NEW 0 name.bit:80"]),
    FuzzTarget(
        "stemns-streams",
        _streams,
        (),
        [
            _STREAM
            + b"\r\n"
            + _LISTED
            + b"\n\n250+stream-status=\r\n7 CONTROLLER_WAIT 0 name.bit:80"
        ],
    ),
]
