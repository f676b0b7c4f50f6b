"""The control port's bytes: lines, replies, authentication.  Made for lines nobody vouches for.

Theory of operation
    Tor writes host names as it was given them into STREAM events and into the answer to
    `GETINFO stream-status`, line breaks included.  So whoever can reach a SocksPort or a
    DNSPort can write whole lines into the connection of every controller that listens to
    events: forged events, and forged replies.  stem's parser takes both for genuine.

    The remedy is to keep what can be forged apart from what cannot, by connection:

    events    receives events, and every line is a hint; the refusal of a random key tells
              that what was written before has been read
    queries   asks for listings.  Each question is followed by a second one, about a key
              that is a random number; Tor's refusal of it names the number, and ends the
              answer.  What is forged inside cannot contain the number
    commands  no events are subscribed to, no listing is asked for, and the replies to its
              commands hold no text of clients': the n-th reply answers the n-th command

    `LineSplitter` and `ReplyAssembler` are for reading; `parse_methods` and `SafeCookie`
    for proving who we are.

Invariants
    Lines, data blocks and replies are bounded.  A line that no reply can begin with, or an
    event where none was subscribed to, ends the connection; nothing is guessed.

Specification: control-spec §2.3, §3.5 (AUTHENTICATE), §3.21 (PROTOCOLINFO), §3.24
(AUTHCHALLENGE).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import LimitExceeded, RemoteProtocolError

MAX_LINE: Final = 16 * 1024
MAX_REPLY: Final = 1024 * 1024
"""Bytes of one reply; listings are read line by line and bounded elsewhere."""

_REPLY_LINE: Final = re.compile(rb"([0-9]{3})([-+ ])(.*)", re.DOTALL)


class LineSplitter:
    """Cuts bytes into lines of at most `MAX_LINE` bytes, their CRLF removed."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes; raises LimitExceeded."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        if len(self._rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise LimitExceeded("Tor's control port sent a line longer than any it has")
        return lines


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one command: the code of its last line, and its lines without codes."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def is_ok(self) -> bool:
        return self.code == 250


class ReplyAssembler:
    """Makes replies of lines, where no line can have been forged."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._in_data = False

    def feed(self, line: bytes) -> Reply | None:
        """The reply that `line` completes; raises RemoteProtocolError."""
        self._size += len(line) + 1
        if self._size > MAX_REPLY:
            raise LimitExceeded("Tor's control port sent a reply longer than any expected")
        if self._in_data:
            self._in_data = line != b"."
            if self._in_data:
                self._lines.append(line.removeprefix(b".") if line[:2] == b".." else line)
            return None
        match = _REPLY_LINE.fullmatch(line)
        if match is None or match[1] == b"650":
            raise RemoteProtocolError("the control port answered with something else than a reply")
        self._lines.append(match[3])
        self._in_data = match[2] == b"+"
        if match[2] != b" ":
            return None
        reply = Reply(int(match[1]), tuple(self._lines))
        self._lines, self._size = [], 0
        return reply


def command(*words: str) -> bytes:
    """One command line; ValueError if a word could end it or split."""
    for word in words:
        if not word.isascii() or not word.isprintable() or " " in word or not word:
            raise ValueError("a word of a control command holds what it may not")
    return " ".join(words).encode("ascii") + b"\r\n"


# -- authentication

_METHODS: Final = re.compile(
    rb'AUTH METHODS=(?P<methods>[A-Z,]+)(?: COOKIEFILE="(?P<file>(?:[^"\\]|\\.)*)")?'
)
_CHALLENGE: Final = re.compile(
    rb"AUTHCHALLENGE SERVERHASH=(?P<hash>[0-9A-Fa-f]{64}) SERVERNONCE=(?P<nonce>[0-9A-Fa-f]{64})"
)
_TO_CONTROLLER: Final = b"Tor safe cookie authentication server-to-controller hash"
_TO_SERVER: Final = b"Tor safe cookie authentication controller-to-server hash"
COOKIE_LENGTH: Final = 32
_OCTAL_OR_LETTER: Final = re.compile(rb"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True, slots=True)
class Methods:
    """How Tor lets a controller prove itself, and where its cookie is."""

    names: frozenset[bytes]
    cookie_file: bytes | None


def unescape(text: bytes) -> bytes:
    """The bytes that the inside of one of Tor's quoted strings stands for."""

    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes([int(match[1], 8)])
        return _LETTERS.get(match[2], match[2])

    return _OCTAL_OR_LETTER.sub(byte, text)


def escape(text: bytes) -> bytes:
    """The inside of a quoted string that stands for `text`."""
    return b"".join(
        bytes([byte]) if 32 <= byte < 127 and byte not in b"\"\\'" else b"\\%03o" % byte
        for byte in text
    )


def parse_methods(reply: Reply) -> Methods:
    """What the answer to PROTOCOLINFO offers; raises RemoteProtocolError."""
    for line in reply.lines:
        match = _METHODS.fullmatch(line)
        if match is not None:
            file = None if match["file"] is None else unescape(match["file"])
            return Methods(frozenset(match["methods"].split(b",")), file)
    raise RemoteProtocolError("the program at the control port does not authenticate as Tor does")


class SafeCookie:
    """Proves that both sides know the cookie, without showing it to who does not."""

    def __init__(self, cookie: bytes, nonce: bytes) -> None:
        self._cookie = cookie
        self._nonce = nonce

    def challenge(self) -> bytes:
        """The command that begins it."""
        return command("AUTHCHALLENGE", "SAFECOOKIE", self._nonce.hex())

    def answer(self, reply: Reply) -> bytes:
        """The command that ends it; raises RemoteProtocolError if Tor's proof is wrong."""
        match = _CHALLENGE.fullmatch(reply.lines[0]) if reply.is_ok else None
        if match is None:
            raise RemoteProtocolError("Tor refused to authenticate by cookie")
        both = self._cookie + self._nonce + bytes.fromhex(match["nonce"].decode())
        theirs = hmac.new(_TO_CONTROLLER, both, hashlib.sha256).digest()
        if not hmac.compare_digest(theirs, bytes.fromhex(match["hash"].decode())):
            raise RemoteProtocolError("the program at the control port does not know Tor's cookie")
        return command("AUTHENTICATE", hmac.new(_TO_SERVER, both, hashlib.sha256).hexdigest())


def password_command(password: str) -> bytes:
    """AUTHENTICATE with a password; ValueError if it holds a control character."""
    if not password.isprintable():
        raise ValueError("a control port's password has printable characters only")
    escaped = password.replace("\\", "\\\\").replace('"', '\\"')
    return f'AUTHENTICATE "{escaped}"\r\n'.encode()
