"""The bytes of Tor's control connection: messages out of a stream, meaning out of messages.

Theory of operation
    `MessageSplitter` cuts the stream into messages (control-spec §2.3): lines that begin
    with three digits and `-`, `+` or a space, where `+` opens a block of data that ends
    with a line of one dot, and the space marks the last line.  `parse_reply` reads the
    answer to a command, `parse_event` the events that isoproxy acts on.

Invariants
    Tor copies strings of its clients into event lines.  Therefore a line means something
    only if all of it matches a strict grammar; any other line is None, and nothing is
    ever done because of it.  What a person's activity could be known by (the address of
    an onion service in REND_QUERY) is not taken out of the line at all, and credentials
    do not show in a repr.  Line and message length are bounded.

Specification: control-spec §2.3, §4.1.1 (CIRC), §4.1.7 (SIGNAL), §4.1.10 (STATUS_CLIENT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from isoproxy.errors import LimitExceeded, RemoteProtocolError

MAX_LINE: Final = 64 * 1024
MAX_MESSAGE: Final = 8 * 1024 * 1024

_REPLY_LINE = re.compile(rb"[0-9]{3}[-+ ]")


class MessageSplitter:
    """Cuts the bytes of a control connection into messages, closing CRLF included."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._line = 0  # where the first line that has not been read begins
        self._searched = 0  # up to where no CRLF was found
        self._in_data = False

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes.

        Raises `RemoteProtocolError` for bytes that are no control message and
        `LimitExceeded` for a line or message beyond the limits; the connection is then
        of no further use.
        """
        self._buffer += data
        messages = []
        while (end := self._buffer.find(b"\r\n", self._searched)) >= 0:
            line = bytes(self._buffer[self._line : end])
            self._line = self._searched = end + 2
            self._bound(len(line))
            if self._ends_message(line):
                messages.append(bytes(self._buffer[: self._line]))
                del self._buffer[: self._line]
                self._line = self._searched = 0
        self._searched = max(self._line, len(self._buffer) - 1)
        self._bound(len(self._buffer) - self._line)
        return messages

    def _bound(self, line_length: int) -> None:
        if line_length > MAX_LINE or self._line > MAX_MESSAGE:
            raise LimitExceeded("Tor's control port sent a message longer than isoproxy reads")

    def _ends_message(self, line: bytes) -> bool:
        if self._in_data:
            self._in_data = line != b"."
            return False
        if not _REPLY_LINE.match(line):
            raise RemoteProtocolError("the program at the control port does not speak as Tor does")
        self._in_data = line[3:4] == b"+"
        return line[3:4] == b" "


@dataclass(frozen=True, slots=True)
class Reply:
    """Tor's answer: the code of its last line, and the text of each line.

    The lines of a data block are joined by newlines, to the line that opens the block.
    """

    code: int
    lines: tuple[bytes, ...]

    @property
    def is_ok(self) -> bool:
        """Whether Tor did it: control-spec §2.3, any code of the 200s."""
        return 200 <= self.code < 300


def parse_reply(message: bytes) -> Reply:
    """The reply in one `message` of `MessageSplitter`."""
    texts: list[list[bytes]] = []
    in_data = False
    code = b""
    for line in message.split(b"\r\n")[:-1]:
        if not in_data:
            code, in_data = line[:3], line[3:4] == b"+"
            texts.append([line[4:]])
        elif line == b".":
            in_data = False
        else:
            texts[-1].append(line[1:] if line.startswith(b"..") else line)
    return Reply(int(code), tuple(b"\n".join(text) for text in texts))


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


Event = Circuit | Bootstrap | Signal

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
_ESCAPE = re.compile(rb"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def unquote(value: bytes) -> bytes:
    """The bytes that Tor's C-style quoted string stands for; unquoted text as it is."""
    if not value.startswith(b'"'):
        return value

    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes([int(match[1], 8)])
        return _LETTERS.get(match[2], match[2])

    return _ESCAPE.sub(byte, value[1:-1])


def parse_event(message: bytes) -> Event | None:
    """The event in one asynchronous `message`, or None if isoproxy does not know it."""
    if not message.startswith(b"650 ") or not message.endswith(b"\r\n"):
        return None
    kind, _, body = message[4:-2].partition(b" ")
    if kind == b"CIRC":
        return parse_circuit(body)
    if kind == b"STATUS_CLIENT":
        return parse_bootstrap(body)
    if kind == b"SIGNAL" and _SIGNAL.fullmatch(body):
        return Signal(body.decode("ascii"))
    return None


def parse_circuit(line: bytes) -> Circuit | None:
    """A line of `GETINFO circuit-status`, or what follows `650 CIRC `."""
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
    """The answer to `GETINFO status/bootstrap-phase`, or what follows `650 STATUS_CLIENT `."""
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
