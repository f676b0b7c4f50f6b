"""The bytes of Tor's control protocol: lines out of a stream, replies out of lines.

Theory of operation
    `LineSplitter` cuts a stream into lines.  `ReplyAssembler` makes replies of them: lines
    that begin with three digits and `-`, `+` or a space, where `+` opens a block of data
    that ends with a line of one dot, and the space marks the last line.  An asynchronous
    reply (code 650) carries an event.  `command` is the other direction; a server of the
    protocol reads commands with a `LineSplitter` too, and as Tor does takes a bare LF for
    the end of a line.  From Tor that would let a client's host name end one.

Invariants
    Lines, data blocks and replies are bounded.  A line that no reply can hold ends the
    connection (RemoteProtocolError); nothing is guessed.  What a line looks like proves
    nothing where Tor writes strings of its clients (`control.session` says where).

Specification: control-spec §2.2 (commands), §2.3 (replies), §2.1.1 (QuotedString).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError

MAX_LINE: Final = 64 * 1024
MAX_REPLY: Final = 8 * 1024 * 1024
"""Bytes of one reply; the lists of streams are read line by line and bounded elsewhere."""
EVENT: Final = 650
"""The code of asynchronous replies."""

_REPLY_LINE: Final = re.compile(rb"([0-9]{3})([-+ ])(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class LineSplitter:
    """Cuts bytes into lines of at most `MAX_LINE` bytes, their `end` removed."""

    def __init__(self, end: bytes = b"\r\n") -> None:
        self._end = end
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes; raises LimitExceeded."""
        *lines, self._rest = (self._rest + data).split(self._end)
        if len(self._rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise LimitExceeded("a line on the control port is longer than any expected")
        return lines


@dataclass(frozen=True, slots=True)
class ControlReply:
    """Tor's answer to a command, or an event: the last line's code, and each line's text.

    The lines of a data block are joined by newlines to the line that opens the block.
    """

    code: int
    lines: tuple[bytes, ...]

    @property
    def is_ok(self) -> bool:
        """Whether Tor did it: any code of the 200s."""
        return 200 <= self.code < 300


class ReplyAssembler:
    """Makes replies of the lines of one connection."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._data: list[bytes] | None = None
        self._size = 0
        self._is_event = False

    def feed(self, line: bytes) -> ControlReply | None:
        """The reply that `line` completes; raises RemoteProtocolError or LimitExceeded."""
        self._size += len(line) + 2
        if self._size > MAX_REPLY:
            raise LimitExceeded("Tor's control port sent a reply longer than any expected")
        if self._data is not None:
            self._take_data(self._data, line)
            return None
        match = _REPLY_LINE.fullmatch(line)
        if match is None:
            raise RemoteProtocolError("the program at the control port does not speak as Tor does")
        code = int(match[1])
        if self._lines and self._is_event != (code == EVENT):
            raise RemoteProtocolError("the control port mixes a reply with an event")
        self._is_event = code == EVENT
        if match[2] == b"+":
            self._data = [match[3]]
            return None
        self._lines.append(match[3])
        if match[2] == b"-":
            return None
        reply = ControlReply(code, tuple(self._lines))
        self._lines, self._size = [], 0
        return reply

    def _take_data(self, data: list[bytes], line: bytes) -> None:
        if line == b".":
            self._lines.append(b"\n".join(data))
            self._data = None
        else:
            data.append(line[1:] if line.startswith(b"..") else line)


def command(*words: str) -> bytes:
    """One command line; LocalProtocolError if a word could end it or split."""
    for word in words:
        if not word.isascii() or not word.isprintable() or " " in word or not word:
            raise LocalProtocolError("a word of a control command holds what it may not")
    return " ".join(words).encode("ascii") + b"\r\n"


def quote(text: bytes) -> bytes:
    """A QuotedString that stands for `text`: printable ASCII, all else in octal."""
    return b'"%s"' % b"".join(
        bytes([byte]) if 32 <= byte < 127 and byte not in b"\"\\'" else b"\\%03o" % byte
        for byte in text
    )


def unquote(value: bytes) -> bytes:
    """The bytes that Tor's C-style QuotedString stands for; unquoted text as it is."""
    if not value.startswith(b'"'):
        return value

    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes([int(match[1], 8)])
        return _LETTERS.get(match[2], match[2])

    return _ESCAPE.sub(byte, value[1:-1])
