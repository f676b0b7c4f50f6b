"""Tor's events and lists, as far as isoproxy acts on them: circuits, bootstrap, signals, uploads.

Theory of operation
    `parse_event` reads the text of an asynchronous reply; `parse_circuit` and
    `parse_bootstrap` also read what GETINFO lists in the same form.

Invariants
    Tor copies strings of its clients into event lines.  Therefore a line means something
    only if all of it matches a strict grammar; any other line is None, and nothing is
    ever done because of it.  What a person's activity could be known by (the address of
    an onion service in REND_QUERY) is not taken out of the line at all, and credentials
    do not show in a repr.

Specification: control-spec §4.1.1 (CIRC), §4.1.17 (SIGNAL), §4.1.10 (STATUS_CLIENT), §4.1.25
(HS_DESC).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from isoproxy.tor.control.wire import EVENT, ControlReply, unquote


class Hop(NamedTuple):
    """One relay of a circuit: 40 hex digits, and the name it gives itself."""

    fingerprint: str
    nickname: str | None


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit as Tor reports it.

    `username` and `password` are the SOCKS credentials of the streams it carries, as
    bytes; None means that Tor reported none.  Tor shows a credential up to its first NUL.
    `conflux_id` is the same for the two legs of one conflux set.
    """

    id: str
    status: str
    path: tuple[Hop, ...] = ()
    purpose: str = ""
    username: bytes | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)
    conflux_id: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether this report says that the circuit has ended."""
        return self.status in ("CLOSED", "FAILED")


class Bootstrap(NamedTuple):
    """How far Tor's start has come; `warning` says what holds it up, if anything does."""

    percent: int
    tag: str
    summary: str
    warning: str | None = None


class Signal(NamedTuple):
    """Tor has received a signal, for example NEWNYM."""

    name: str


@dataclass(frozen=True, slots=True)
class DescriptorUpload:
    """A directory has taken the descriptor of an onion service of this Tor's."""

    address: str = field(repr=False)


Event = Circuit | Bootstrap | Signal | DescriptorUpload

_QUOTED = rb'"(?:[ !#-\[\]-~]|\\["\'\\nrt]|\\[0-3][0-7]{2})*"'
_VALUE = rb"(?:" + _QUOTED + rb"|[!#-~][!-~]*)"
_FIELD = re.compile(rb" (?P<key>[A-Z][A-Z0-9_]{0,31})=(?P<value>" + _VALUE + rb")")
_FIELDS = rb"(?P<fields>(?: [A-Z][A-Z0-9_]{0,31}=" + _VALUE + rb")*)"
_HOP = rb"\$[0-9A-F]{40}(?:[~=][A-Za-z0-9]{1,19})?"
_CIRCUIT = re.compile(
    rb"(?P<id>[A-Za-z0-9]{1,16})"
    rb" (?P<status>LAUNCHED|BUILT|GUARD_WAIT|EXTENDED|FAILED|CLOSED)"
    rb"(?: (?P<path>" + _HOP + rb"(?:," + _HOP + rb")*))?" + _FIELDS
)
_BOOTSTRAP = re.compile(rb"(?:NOTICE|WARN) BOOTSTRAP" + _FIELDS)
_CLOSED = "DONE"
"""Tor's reason for a connection that ended without an error; nobody would read it as a problem."""
_SIGNAL = re.compile(rb"[A-Z0-9]{1,32}")
_UPLOADED = re.compile(rb"UPLOADED ([a-z2-7]{56}) UNKNOWN " + _HOP + rb"(?: [!-~]{1,128})*")


def parse_event(reply: ControlReply) -> Event | None:
    """The event in an asynchronous reply, or None if isoproxy does not know it."""
    if reply.code != EVENT or len(reply.lines) != 1:
        return None
    kind, _, body = reply.lines[0].partition(b" ")
    if kind == b"CIRC":
        return parse_circuit(body)
    if kind == b"STATUS_CLIENT":
        return parse_bootstrap(body)
    if kind == b"SIGNAL" and _SIGNAL.fullmatch(body):
        return Signal(body.decode("ascii"))
    if kind == b"HS_DESC" and (uploaded := _UPLOADED.fullmatch(body)):
        return DescriptorUpload(uploaded[1].decode("ascii"))
    return None


def parse_circuit(line: bytes) -> Circuit | None:
    """A line of `GETINFO circuit-status`, or what follows `CIRC ` in an event."""
    match = _CIRCUIT.fullmatch(line)
    fields = None if match is None else _fields(match["fields"])
    if match is None or fields is None:
        return None
    return Circuit(
        id=match["id"].decode("ascii"),
        status=match["status"].decode("ascii"),
        path=_path(match["path"] or b""),
        purpose=fields.get("PURPOSE", b"").decode("ascii", "replace"),
        username=fields.get("SOCKS_USERNAME"),
        password=fields.get("SOCKS_PASSWORD"),
        conflux_id=_text(fields.get("CONFLUX_ID")),
    )


def parse_bootstrap(line: bytes) -> Bootstrap | None:
    """The answer to `GETINFO status/bootstrap-phase`, or what follows `STATUS_CLIENT `."""
    match = _BOOTSTRAP.fullmatch(line)
    fields = None if match is None else _fields(match["fields"])
    if fields is None:
        return None
    percent = fields.get("PROGRESS", b"")
    if not re.fullmatch(rb"[0-9]{1,2}|100", percent):
        return None
    tag, summary = _text(fields.get("TAG")), _text(fields.get("SUMMARY"))
    warning = _text(fields.get("WARNING"))
    if warning == _CLOSED:
        warning = "the connection to a relay was closed"
    return Bootstrap(int(percent), tag or "", summary or "", warning)


def _fields(text: bytes) -> dict[str, bytes] | None:
    """`KEY=value` pairs, values unquoted; None if a key comes twice."""
    pairs = [(match["key"].decode("ascii"), match["value"]) for match in _FIELD.finditer(text)]
    fields = {key: unquote(value) for key, value in pairs}
    return fields if len(fields) == len(pairs) else None


def _path(text: bytes) -> tuple[Hop, ...]:
    hops = text.decode("ascii").split(",") if text else []
    return tuple(Hop(hop[1:41], hop[42:] or None) for hop in hops)


def _text(value: bytes | None) -> str | None:
    """Words of Tor's own for a person: whatever a terminal might act on is left out."""
    if value is None:
        return None
    return "".join(c for c in value.decode("ascii", "replace") if c.isprintable())
