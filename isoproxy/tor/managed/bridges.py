"""Bridges as a person pastes them, and the transports that they need.

Theory of operation
    Bridge lines come from mails, web pages and chats: with or without the word `Bridge`,
    with blanks of all kinds, comments, invisible characters, quotation marks, and broken
    in two.  `read_bridges` makes each the one form that torrc takes.  What it refuses it
    refuses before tor starts, since tor would repeat the line in its log.

Invariants
    A bridge's address is a secret: no error, repr or log has any part of a line.  A host
    is an IP literal: nothing is resolved.

Specification: tor(1) Bridge, ClientTransportPlugin; pt-spec.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from isoproxy.errors import ConfigError

VANILLA: Final = "vanilla"
"""How people call a bridge without a transport."""
_PROGRAMS: Final = {
    "obfs4": ("lyrebird", "obfs4proxy"),
    "meek_lite": ("lyrebird", "obfs4proxy"),
    "webtunnel": ("webtunnel-client", "lyrebird"),
    "snowflake": ("snowflake-client", "lyrebird"),
}
"""Who speaks each transport, the first that is installed."""
_NEEDS: Final = {"obfs4": "cert", "meek_lite": "url", "webtunnel": "url"}
"""What a line of a transport cannot do without."""
_TRANSPORT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", re.ASCII)
_FINGERPRINT: Final = re.compile(r"\$?([0-9A-Fa-f]{40})", re.ASCII)
_ARGUMENT: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=[!-~]+", re.ASCII)
_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"
_MAX_LINE: Final = 2000


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge: what it speaks, None for Tor's own protocol, and its line in a torrc."""

    transport: str | None
    line: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transport:
    """A program of the user's own choice that speaks a transport, with its arguments."""

    name: str
    command: str


def read_bridges(entries: Iterable[str]) -> tuple[Bridge, ...]:
    """The bridges in pasted text, each once; raises ConfigError, which quotes nothing."""
    found: dict[str, Bridge] = {}
    for number, entry in enumerate(entries, 1):
        try:
            for words in _lines(entry):
                bridge = _bridge(words)
                found.setdefault(bridge.line, bridge)
        except ValueError as error:
            raise ConfigError(f"entry {number}: {error}") from None
    return tuple(found.values())


def read_transports(entries: Iterable[str]) -> tuple[Transport, ...]:
    """Entries `NAME PROGRAM [ARGUMENT]…`; raises ConfigError."""
    found = []
    for number, entry in enumerate(entries, 1):
        name, _, command = entry.strip().partition(" ")
        program = command.strip()
        if not _TRANSPORT.fullmatch(name) or not program.startswith("/"):
            raise ConfigError(
                f"entry {number}: expected a transport's name and the whole path of a program, as "
                'in "obfs4 /usr/bin/obfs4proxy"'
            )
        found.append(Transport(name, program))
    return tuple(found)


def transport_lines(
    bridges: Sequence[Bridge],
    transports: Sequence[Transport],
    find: Callable[[str], str | None],
) -> list[str]:
    """The lines of torrc for `bridges`; `find(program)` is where a program is installed.

    Raises ConfigError with the name of a transport that nothing here speaks.
    """
    if not bridges:
        return []
    chosen = {transport.name: transport.command for transport in transports}
    lines = ["UseBridges 1"]
    for name in sorted({bridge.transport for bridge in bridges if bridge.transport}):
        command = chosen.get(name) or _installed(name, find)
        lines.append(f"ClientTransportPlugin {name} exec {command}")
    return lines + [f"Bridge {bridge.line}" for bridge in bridges]


def _installed(transport: str, find: Callable[[str], str | None]) -> str:
    programs = _PROGRAMS.get(transport, ())
    for program in programs:
        path = find(program)
        if path is not None and " " not in path:
            return path
    advice = f'name it in tor.transports, as in "{transport} /path/of/it"'
    if programs:
        advice = (
            f"install {' or '.join(programs)} (on Debian: apt install {programs[-1]}), or {advice}"
        )
    raise ConfigError(
        f"a bridge in tor.bridges needs the transport {transport}, and no program for it is "
        f"installed; {advice}"
    )


def _lines(entry: str) -> Iterator[list[str]]:
    """The words of each bridge in what was pasted; what was broken in two is one again."""
    words: list[str] = []
    for text in entry.splitlines():
        visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
        more = visible.partition("#")[0].strip(_QUOTES + " \t,;").split()
        if more and more[0].lower() == "bridge":
            more = more[1:]
        if not more:
            continue
        if words and not _continues(more[0]):
            yield words
            words = []
        words += more
    if words:
        yield words


def _continues(word: str) -> bool:
    """Whether no bridge begins with this word, so that it belongs to the line before."""
    return bool(_FINGERPRINT.fullmatch(word) or _ARGUMENT.fullmatch(word))


def _bridge(words: list[str]) -> Bridge:
    if sum(map(len, words)) > _MAX_LINE:
        raise ValueError("a bridge's line is not so long")
    transport: str | None = None
    if _TRANSPORT.fullmatch(words[0]):
        transport, *words = words
        if transport.lower() == VANILLA:
            transport = None
    if not words:
        raise ValueError("a bridge's address is missing")
    address, *words = words
    parts = [_checked_address(address)]
    if words and (fingerprint := _FINGERPRINT.fullmatch(words[0])):
        parts.append(fingerprint[1].upper())
        words = words[1:]
    arguments = [_ARGUMENT.fullmatch(word) for word in words]
    if None in arguments:
        raise ValueError(
            "expected [TRANSPORT] IP:PORT [FINGERPRINT] [KEY=VALUE]…, where a fingerprint has 40 "
            "hexadecimal digits"
        )
    if transport is None and words:
        raise ValueError("a bridge with KEY=VALUE begins with its transport, such as obfs4")
    needed = _NEEDS.get(transport or "")
    if needed and needed not in {argument[1] for argument in arguments if argument}:
        raise ValueError(f"a bridge of {transport} has {needed}=…; was all of the line pasted?")
    return Bridge(transport, " ".join([*([transport] if transport else []), *parts, *words]))


def _checked_address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is not None and 1 <= int(match[3]) <= 65535:
        try:
            host = ip_address(match[1] or match[2])
        except ValueError:
            host = None
        if host is not None and host.version == (6 if match[1] else 4):
            return text
    raise ValueError("expected a bridge's address, IP:PORT or [IPv6]:PORT, after its transport")
