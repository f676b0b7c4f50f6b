"""The lines between a program that needs names and a plugin that finds them.

Theory of operation
    The plugin greets with INIT.  Then the program writes RESOLVE and CANCEL lines, and
    the plugin answers RESOLVED and CANCELED in any order:

        <- INIT 1 0
        -> RESOLVE <query> <name> [<stream isolation ID>]
        <- RESOLVED <query> <status> <result>
        -> CANCEL <query>
        <- CANCELED <query>

    The stream isolation ID is an extension that StemNS and ncprop279 agree on.  Results
    of status 0 are one word; texts of failures are quoted.  Lines end with LF; a CR
    before it is dropped.  Environment variables carry the versions that the program
    speaks, a directory for state, and options as `k=v;k=v` with backslash escapes.

Invariants
    A line that is written holds no control character but its LF.  A line that is read is
    cut at `MAX_LINE` bytes, and the query of one as long as that is refused: what is left
    of an isolation ID must not be taken for another.  A keyword that is not known, and a line
    whose query cannot be told, is None.  Nothing here raises because of a line.

Specification: Tor proposal 279 §2.4-2.9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from isoproxy.errors import RemoteProtocolError

VERSION: Final = b"1"
MAX_LINE: Final = 1024
MAX_WORD: Final = 255
"""Bytes of a name, a result or an isolation ID."""

_QUERY: Final = re.compile(rb"[0-9]{1,18}")
_WORD: Final = re.compile(rb"[!-~]{1,%d}" % MAX_WORD)
_RESOLVE: Final = re.compile(
    rb"RESOLVE ([0-9]{1,18}) ([!-~]{1,%d})(?: ([!-~]{1,%d}))?" % (MAX_WORD, MAX_WORD)
)
"""The line as programs write it; others are taken apart word by word."""
_STATUS: Final = re.compile(rb"[0-9]{1,3}")
_UNPRINTABLE: Final = re.compile(rb"[^ -~]")
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)


class Status(IntEnum):
    """What became of a query (§2.5.2)."""

    SUCCESS = 0
    FAILURE = 1
    NOT_OURS = 2
    ABSENT = 3
    TIMEOUT = 4


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find `name` (1-255 printable bytes), apart from every other `isolation` ID."""

    query: int
    name: bytes
    isolation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The answer to `query` is not wanted any more."""

    query: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """A RESOLVE line whose query is known and whose rest is not valid: to be refused."""

    query: int


@dataclass(frozen=True, slots=True)
class Init:
    """The plugin is ready (`status` 0), or says why not."""

    version: bytes
    status: int
    message: bytes = b""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The answer to `query`: one word when `status` is 0, else a text for people."""

    query: int
    status: int
    result: bytes


@dataclass(frozen=True, slots=True)
class Canceled:
    """The plugin will not answer `query` any more."""

    query: int


Command = Resolve | Cancel | Unusable
PluginAnswer = Init | Resolved | Canceled


class LineSplitter:
    """Cuts a stream of bytes into lines of at most `MAX_LINE` bytes, ends removed."""

    def __init__(self) -> None:
        self._rest = b""
        self._cut = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes; of a longer line its beginning."""
        *lines, rest = (self._rest + data).split(b"\n")
        if self._cut and lines:
            lines[0] = self._rest  # what came after the cut is dropped
            self._cut = False
        if self._cut or len(rest) > MAX_LINE:
            rest = (self._rest if self._cut else rest)[:MAX_LINE]
            self._cut = True
        self._rest = rest
        return [
            line.removesuffix(b"\r") if len(line) < MAX_LINE else line[:MAX_LINE] for line in lines
        ]


def parse_command(line: bytes) -> Command | None:
    """What the program wants of the plugin."""
    usual = _RESOLVE.fullmatch(line) if len(line) < MAX_LINE else None
    if usual is not None:
        return Resolve(int(usual[1]), usual[2], usual[3])
    words = [word for word in line.split(b" ") if word]
    if len(words) < 2 or not _QUERY.fullmatch(words[1]):
        return None
    query = int(words[1])
    if words[0] == b"CANCEL":
        return Cancel(query)
    if words[0] != b"RESOLVE":
        return None
    cut = len(line) >= MAX_LINE  # the last word may be the beginning of another
    if cut or len(words) < 3 or not all(_WORD.fullmatch(word) for word in words[2:4]):
        return Unusable(query)
    return Resolve(query, words[2], words[3] if len(words) > 3 else None)


def parse_answer(line: bytes) -> PluginAnswer | None:
    """What the plugin says."""
    words = [word for word in line.split(b" ") if word]
    if len(words) < 2:
        return None
    if words[0] == b"INIT" and len(words) > 2 and _STATUS.fullmatch(words[2]):
        return Init(words[1], int(words[2]), _text(words[3:]))
    if not _QUERY.fullmatch(words[1]):
        return None
    if words[0] == b"CANCELED":
        return Canceled(int(words[1]))
    if words[0] == b"RESOLVED" and len(words) > 2 and _STATUS.fullmatch(words[2]):
        return Resolved(int(words[1]), int(words[2]), _text(words[3:]))
    return None


def write_command(command: Resolve | Cancel) -> bytes:
    """One line; ValueError if a word holds what a line may not."""
    if isinstance(command, Cancel):
        return b"CANCEL %d\n" % command.query
    words = [command.name] if command.isolation is None else [command.name, command.isolation]
    if not all(_WORD.fullmatch(word) for word in words):
        raise ValueError("a word of a RESOLVE line holds a blank or is too long")
    return b"RESOLVE %d %s\n" % (command.query, b" ".join(words))


def write_answer(answer: PluginAnswer) -> bytes:
    """One line; ValueError if a successful result is not one word."""
    if isinstance(answer, Canceled):
        return b"CANCELED %d\n" % answer.query
    if isinstance(answer, Init):
        text = b" " + _quoted(answer.message) if answer.message else b""
        return b"INIT %s %d%s\n" % (answer.version, answer.status, text)
    return b"RESOLVED %d %s\n" % (answer.query, answer_words(answer))


def answer_words(answer: Resolved) -> bytes:
    """What follows the number of the query; ValueError as `write_answer` raises it."""
    if answer.status != Status.SUCCESS:
        return b"%d %s" % (answer.status, _quoted(answer.result))
    if not _WORD.fullmatch(answer.result):
        raise ValueError("the result of a successful query is one word")
    return b"0 " + answer.result


def _quoted(text: bytes) -> bytes:
    text = _UNPRINTABLE.sub(b"?", text[:MAX_WORD])
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _text(words: list[bytes]) -> bytes:
    text = b" ".join(words)
    if len(text) > 1 and text[:1] == text[-1:] == b'"':
        text = _ESCAPE.sub(rb"\1", text[1:-1])
    return text


# -- the environment (§2.7)


@dataclass(frozen=True, slots=True)
class Environment:
    """What the program tells a plugin at its start."""

    versions: tuple[str, ...] = ("1",)
    state: Path | None = None
    options: Mapping[str, str] | None = None

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """From environment variables; those that are absent have their defaults.

        Raises RemoteProtocolError if the options are malformed.
        """
        state = variables.get("TOR_NS_STATE_LOCATION")
        versions = variables.get("TOR_NS_PROTO_VERSION", "1")
        return cls(
            tuple(version.strip() for version in versions.split(",")),
            Path(state) if state else None,
            decode_options(variables.get("TOR_NS_PLUGIN_OPTIONS", "")),
        )

    def variables(self) -> dict[str, str]:
        """The environment variables that say the same."""
        named = {"TOR_NS_PROTO_VERSION": ",".join(self.versions)}
        if self.state is not None:
            named["TOR_NS_STATE_LOCATION"] = str(self.state)
        named["TOR_NS_PLUGIN_OPTIONS"] = encode_options(self.options or {})
        return named

    @property
    def is_compatible(self) -> bool:
        """Whether the program speaks the version of this module."""
        return VERSION.decode() in self.versions


_SPECIAL: Final = re.compile(r"[:;=\\]")
_OPTION: Final = re.compile(r"((?:[^;=\\]|\\.)+)=((?:[^;\\]|\\.)*)", re.DOTALL)
_OPTIONS: Final = re.compile(r"(?:[^;\\]|\\.)+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def encode_options(options: Mapping[str, str]) -> str:
    """`k=v;k=v`, with `:`, `;`, `=` and backslash escaped by a backslash."""

    def escaped(text: str) -> str:
        return _SPECIAL.sub(lambda match: "\\" + match[0], text)

    return ";".join(f"{escaped(key)}={escaped(value)}" for key, value in options.items())


def decode_options(text: str) -> dict[str, str]:
    """The options in `text`; a colon may stand unescaped, as in the specification's example.

    Raises RemoteProtocolError.
    """
    options: dict[str, str] = {}
    at = 0
    while at < len(text):
        part = _OPTIONS.match(text, at)
        option = _OPTION.fullmatch(part[0]) if part is not None else None
        end = at if part is None else part.end()
        if option is None or text[end : end + 1] not in ("", ";"):
            raise RemoteProtocolError("TOR_NS_PLUGIN_OPTIONS is not a list of k=v;k=v")
        options[_ESCAPED.sub(r"\1", option[1])] = _ESCAPED.sub(r"\1", option[2])
        at = end + 1
    return options
