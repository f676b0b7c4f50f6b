"""The Electrum protocol's framing: JSON-RPC 2.0, one object per line, in both directions.

Theory of operation
    `Wire` numbers our requests and turns received bytes into `Response`, `Refusal` and
    `Notification` events.  Servers pad lines with blanks to hide their length and answer
    in any order; both are tolerated, as are notifications that were not asked for.  A notification
    that is too long is passed over: a block's header may be as long as whoever mined or
    passed it on likes.

Invariants
    * A line is at most `max_line` bytes, JSON at most as deep as the parser's own stack.
      It has at most `MAX_PARTS` values: 20 MB of empty lists are half a gigabyte in memory
      and more than a second of everybody's time.
    * A line is copied once, its padding never, and read once: 20 ms for the longest.
    * A response belongs to a request of ours that has none yet; any other is a breach.
    * A few notifications of a method that we never subscribed to are passed over, more are a
      breach; so is one longer than the longest line.
    * A server's error text never leaves this module: it may repeat what was asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Never

from isoproxy.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError

MAX_LINE: Final = 20_000_000
"""Bytes; twice what servers of merge-mined coins allow themselves to send, for padding."""
MAX_TEXT: Final = 10_500_000
"""Bytes of a line without its padding."""
MAX_REQUEST: Final = 100_000
"""Bytes; servers accept 1 000 000 and ours are far smaller."""
MAX_OUTSTANDING: Final = 1024
_HEAD: Final = 256
"""Bytes from a line's beginning within which it is clear that it is a notification."""
MAX_UNASKED: Final = 8
"""Notifications of other methods than `SUBSCRIBED`, in a connection's whole life."""
SUBSCRIBED: Final = "blockchain.headers.subscribe"
MAX_PARTS: Final = 100_000
"""Values in one line; a history that fits a look-up's line has a third of that."""

_MARKS: Final = ",[{\\"
"""What values begin with or are separated by; and escapes, each of which takes time."""
_FEW_BYTES: Final = 1 << 20

EXCESSIVE_USE: Final = -101


@dataclass(frozen=True, slots=True)
class Response:
    """The result of request `number`."""

    number: int
    result: object


@dataclass(frozen=True, slots=True)
class Refusal:
    """Request `number` failed at the server with an integer `code`."""

    number: int
    code: int


@dataclass(frozen=True, slots=True)
class Notification:
    """Something the server says unasked."""

    method: str
    params: Sequence[object]


Event = Response | Refusal | Notification


def _no_constant(text: str) -> Never:
    raise ValueError(text)


class AnswerTooLong(LimitExceeded):
    """A line is beyond what is read.

    That proves nothing about the server: whoever owns a name, or mines a block, decides how
    long an honest answer about it is.
    """

    def __init__(self) -> None:
        super().__init__("a name server's line is too long, or has too many parts")


class Wire:
    """One connection's codec, as the client.  `max_line` may be changed at any time."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self.max_line = max_line
        self._buffer = bytearray()
        self._scanned = 0
        self._passes_over = False
        self._passed_over = 0
        self._unasked = 0
        self._number = 0
        self._outstanding: set[int] = set()

    @property
    def outstanding(self) -> int:
        """Requests without an answer yet."""
        return len(self._outstanding)

    def request(self, method: str, params: Sequence[object]) -> tuple[int, bytes]:
        """The number of a new request, and the line to send."""
        if len(self._outstanding) >= MAX_OUTSTANDING:
            raise LocalProtocolError("too many requests without an answer")
        self._number += 1
        message = {
            "jsonrpc": "2.0",
            "id": self._number,
            "method": method,
            "params": list(params),
        }
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_REQUEST:
            raise LocalProtocolError("a request is too long")
        self._outstanding.add(self._number)
        return self._number, line

    def receive(self, data: bytes) -> list[Event]:
        """The events that `data` completes.

        Raises AnswerTooLong or RemoteProtocolError; the connection is of no use then.
        """
        self._buffer += data
        events: list[Event] = []
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._scanned))) >= 0:
            if end - start > self.max_line:
                self._pass_over(start)
            if not self._passes_over:
                events.append(self._event(self._text(start, end)))
            self._passes_over, self._passed_over = False, 0
            start = end + 1
        if len(self._buffer) - start > self.max_line:
            self._pass_over(start)
        if self._passes_over:
            self._passed_over += len(self._buffer) - start
            if self._passed_over > MAX_LINE:
                raise RemoteProtocolError("a name server's notification has no end")
            start = len(self._buffer)
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        return events

    def _pass_over(self, start: int) -> None:
        """Leave out the line at `start`, which is too long, if no request waits for it."""
        if not self._passes_over and b'"method"' not in self._buffer[start : start + _HEAD]:
            raise AnswerTooLong
        self._passes_over = True

    def _text(self, start: int, end: int) -> str:
        """A line of the buffer up to its last brace: the padding behind it is not copied."""
        end = self._buffer.rfind(b"}", start, end) + 1 or start
        if end - start > MAX_TEXT:
            raise AnswerTooLong
        try:
            with memoryview(self._buffer) as view:
                return str(view[start:end], "utf-8")
        except ValueError:
            raise RemoteProtocolError("a name server sent something that is not text") from None

    def _event(self, line: str) -> Event:
        if _has_too_many_parts(line):
            raise AnswerTooLong
        try:
            message = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise RemoteProtocolError("a name server sent something that is not JSON") from None
        if not isinstance(message, dict):
            raise RemoteProtocolError("a name server sent something that is not an object")
        if "method" in message:
            return self._notification(message)
        number = message.get("id")
        if type(number) is not int or number not in self._outstanding:
            raise RemoteProtocolError("a name server answered what was not asked")
        self._outstanding.discard(number)
        if message.get("error") is not None:
            return Refusal(number, _error_code(message["error"]))
        if "result" not in message:
            raise RemoteProtocolError("a name server's answer has no result")
        return Response(number, message["result"])

    def _notification(self, message: dict[str, object]) -> Notification:
        method, params = message["method"], message.get("params", [])
        if not isinstance(method, str) or not isinstance(params, list):
            raise RemoteProtocolError("a name server's notification is malformed")
        self._unasked += method != SUBSCRIBED
        if self._unasked > MAX_UNASKED:
            raise RemoteProtocolError("a name server tells what was not asked for")
        return Notification(method, params)


def _has_too_many_parts(line: str) -> bool:
    if len(line) <= _FEW_BYTES:
        return sum(map(line.count, _MARKS)) > MAX_PARTS
    left = MAX_PARTS
    for mark in _MARKS:  # counting takes a nanosecond per byte, finding what is rare a tenth
        at = line.find(mark)
        while at >= 0:
            left -= 1
            if left < 0:
                return True
            at = line.find(mark, at + 1)
    return False


def _error_code(error: object) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int else 0
