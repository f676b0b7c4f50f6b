"""What a workstation may say to the control filter: from a command to an answer and an effect.

Theory of operation
    `judge` is the policy: from a command line and what this client may know to what is
    answered and what is done.  All else a control port can do is refused, or answered here.
    Keywords in any case and blanks anywhere are read as Tor reads them.

    StemNS answers look-ups long after their streams are gone, and ends for good at any
    reply but 250.  Commands about an offer that has ended are therefore answered 250, and
    nothing is done.

Invariants
    What is done is about a stream that was offered to this client, and nothing else.  A
    redirection has a host and no port; a circuit cannot be chosen.  Numbers of streams are
    the filter's own.

Specification: control-spec §2.2 (commands), §3.3 to §3.21 for each command.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import PolicyRefusal
from isoproxy.net.target import Target
from stemns_plugin.grammar import StreamEvent

_EVENTS: Final = frozenset({b"STREAM", b"SIGNAL", b"CONF_CHANGED", b"STATUS_CLIENT", b"EXTENDED"})
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
_MAX_KEYS: Final = 8
_KEY: Final = re.compile(rb"[!#-~]{1,64}")


@dataclass(slots=True)
class Offer:
    """A stream whose name one client may resolve; `target` is set by its REDIRECTSTREAM."""

    event: StreamEvent
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """The client wants the stream to go where it redirected it."""

    stream: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The client gives the stream up."""

    stream: int


@dataclass(frozen=True, slots=True, repr=False)
class Redirected:
    """The client wants the stream to go to `target`, once it says so."""

    stream: int
    target: Target


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The events that the client wants."""

    events: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Quit:
    """The client ends the connection."""


Effect = Attached | Closed | Redirected | Subscribed | Quit


@dataclass(frozen=True, slots=True)
class FilterDecision:
    """The answer to the client, and what is done."""

    reply: bytes
    effect: Effect | None = None


@dataclass(frozen=True, slots=True)
class ClientView:
    """What one client may know.

    offers   the streams offered to its address
    offered  the numbers of all offers that were made on this connection, ended or not
    info     what GETINFO tells of Tor
    conf     what GETCONF tells of Tor, by the option in lower case
    """

    offers: Mapping[int, Offer] = field(default_factory=dict)
    offered: Container[int] = ()
    info: Mapping[bytes, bytes] = field(default_factory=dict)
    conf: Mapping[bytes, bytes] = field(default_factory=dict)


def _refused(code: int, text: bytes) -> FilterDecision:
    return FilterDecision(b"%d %s" % (code, text))


_OK: Final = FilterDecision(b"250 OK")
_BLOCKED: Final = _refused(510, b"Command filtered")


def judge(line: bytes, view: ClientView) -> FilterDecision:
    """What becomes of a client's command."""
    words = line.split()
    verb = words[0].upper() if words else b""
    arguments = words[1:]
    if verb in (b"REDIRECTSTREAM", b"ATTACHSTREAM", b"CLOSESTREAM"):
        return _judge_stream(verb, arguments, view)
    if verb == b"SETEVENTS":
        events = frozenset(map(bytes.upper, arguments))
        if not events <= _EVENTS:
            return _refused(552, b"Event filtered")
        return FilterDecision(b"250 OK", Subscribed(events))
    if verb == b"GETINFO":
        return _judge_info(arguments, view)
    if verb == b"GETCONF":
        return _judge_conf(arguments, view.conf)
    if verb == b"PROTOCOLINFO":
        return FilterDecision(
            b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="%s"\r\n250 OK'
            % view.info.get(b"version", b"unknown")
        )
    if verb == b"QUIT":
        return FilterDecision(b"250 closing connection", Quit())
    return _OK if verb in (b"AUTHENTICATE", b"USEFEATURE") else _BLOCKED


def _judge_stream(verb: bytes, arguments: Sequence[bytes], view: ClientView) -> FilterDecision:
    """Commands about a stream: only offered ones exist."""
    if len(arguments) < 2 or not _NUMBER.fullmatch(arguments[0]):
        return _refused(512, b"Bad arguments to " + verb)
    stream = int(arguments[0])
    offer = view.offers.get(stream)
    if offer is None:
        return _OK if stream in view.offered else _refused(552, b'Unknown stream "%d"' % stream)
    if verb == b"CLOSESTREAM":
        return FilterDecision(b"250 OK", Closed(stream))
    if len(arguments) != 2:
        return _refused(512, b"Ports and hops are filtered")
    if verb == b"ATTACHSTREAM":
        if arguments[1] != b"0":
            return _refused(552, b"Circuits are filtered")
        if offer.target is None:
            return _refused(555, b"Redirect the stream first")
        return FilterDecision(b"250 OK", Attached(stream))
    try:
        return FilterDecision(b"250 OK", Redirected(stream, Target.parse(arguments[1], 0)))
    except PolicyRefusal:
        return _refused(512, b"Not a host")


def _judge_info(keys: Sequence[bytes], view: ClientView) -> FilterDecision:
    if len(keys) > _MAX_KEYS:
        return _refused(512, b"Too many keys")
    lines = []
    for key in keys:
        if key == b"stream-status":
            lines.append(_stream_status(view.offers))
        elif key in view.info:
            lines.append(b"250-%s=%s" % (key, view.info[key]))
        else:
            shown = key if _KEY.fullmatch(key) else b"?"
            return _refused(552, b'Unrecognized key "%s"' % shown)
    return FilterDecision(b"\r\n".join([*lines, b"250 OK"]))


def _stream_status(offers: Mapping[int, Offer]) -> bytes:
    events = [offer.event for offer in offers.values()]
    lines = [b"%d %s 0 %s:%d" % (e.id, e.status, e.host, e.port) for e in events]
    return b"\r\n".join([b"250+stream-status=", *lines, b"."])


def _judge_conf(keys: Sequence[bytes], conf: Mapping[bytes, bytes]) -> FilterDecision:
    lines = [conf.get(key.lower()) for key in keys]
    known = [line for line in lines if line is not None]
    if not known or len(known) != len(lines):
        return _refused(552, b"Unrecognized configuration key")
    return FilterDecision(
        b"\r\n".join([*(b"250-" + line for line in known[:-1]), b"250 " + known[-1]])
    )
