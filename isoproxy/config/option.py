"""How one setting is declared: a default, one sentence, and a reader of its TOML value.

A reader takes what `tomllib` gave (str, int, float, bool, list, dict) and returns the
value that the rest of isoproxy uses, or raises ValueError with what is expected.  Its
text never quotes the value: a setting may hold a secret, and the text reaches logs.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from isoproxy.errors import ConfigError
from isoproxy.isolation import FLAG_NAMES, Isolate, parse_isolation
from isoproxy.net.endpoint import Endpoint

T = TypeVar("T")
Reader = Callable[[object], T]

_METADATA_KEY = "isoproxy"


class Mode(int):
    """Permission bits of a unix socket, written as octal text such as "0660"."""

    def __str__(self) -> str:
        return f"{int(self):04o}"


@dataclass(frozen=True, slots=True)
class Option:
    """What the schema knows of a setting; `example` is shown where the default is unset."""

    doc: str
    read: Reader[Any] | None = None
    example: str = ""
    secret: bool = False
    section: type[Any] | None = None
    repeated: bool = False

    @property
    def sentence(self) -> str:
        """`doc`, with the words that are allowed where there is a choice that it does not tell."""
        if not isinstance(self.read, choice) or all(f'"{w}"' in self.doc for w in self.read.words):
            return self.doc
        return f"{self.doc} One of {self.read.listed}."


def option(default: T, doc: str, read: Reader[T], *, example: str = "", secret: bool = False) -> T:
    """A setting: typed as its value, at run time a dataclass field."""
    field: T = _field(Option(doc, read, example, secret), default=default, repr=not secret)
    return field


def section(kind: type[T], doc: str) -> T:
    """A table of settings of its own."""
    field: T = _field(Option(doc, section=kind), default_factory=kind)
    return field


def sections(kind: type[T], doc: str, *, default: tuple[T, ...] = ()) -> tuple[T, ...]:
    """An array of tables, `[[name]]` in TOML."""
    field: tuple[T, ...] = _field(Option(doc, section=kind, repeated=True), default=default)
    return field


def _field(meta: Option, **kwargs: Any) -> Any:
    return dataclasses.field(metadata={_METADATA_KEY: meta}, **kwargs)


def options_of(kind: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Option]]:
    """The settings of a section by name, in the order they were declared."""
    return {f.name: (f, f.metadata[_METADATA_KEY]) for f in dataclasses.fields(kind)}


def boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("expected true or false")
    return raw


def integer(low: int, high: int) -> Reader[int]:
    def read(raw: object) -> int:
        if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return raw

    return read


def number(low: float, high: float) -> Reader[float]:
    def read(raw: object) -> float:
        if not isinstance(raw, int | float) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError(f"expected a number from {low:g} to {high:g}")
        return float(raw)

    return read


def seconds(low: float, high: float) -> Reader[float]:
    def read(raw: object) -> float:
        if not isinstance(raw, int | float) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError(f"expected a number of seconds from {low:g} to {high:g}")
        return float(raw)

    return read


def text(raw: object) -> str:
    if not isinstance(raw, str) or "\0" in raw:
        raise ValueError("expected text in quotes")
    return raw


def one_line(raw: object) -> str:
    line = text(raw)
    if not line.isprintable():
        raise ValueError("expected text of one line, without control characters")
    return line


def matching(pattern: str, expected: str) -> Reader[str]:
    grammar = re.compile(pattern)

    def read(raw: object) -> str:
        if not isinstance(raw, str) or not grammar.fullmatch(raw):
            raise ValueError(f"expected {expected}")
        return raw

    return read


def nearest(word: str, known: Iterable[str]) -> str:
    """`" (did you mean ...?)"` with the word of `known` that is like `word`, if one is."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, raw: object) -> str:
        if raw not in self.words:
            raise ValueError(f"expected one of {self.listed}{nearest(str(raw), self.words)}")
        return str(raw)

    @property
    def listed(self) -> str:
        return ", ".join(f'"{word}"' for word in self.words)


def listening(raw: object) -> Endpoint:
    """Where we listen."""
    if not isinstance(raw, str):
        raise ValueError('expected "IP:port" or "unix:/path"')
    try:
        return Endpoint.parse_listening(raw)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def endpoint_or_none(raw: object) -> Endpoint:
    """Where we connect to, or "none"."""
    if not isinstance(raw, str):
        raise ValueError('expected "IP:port", "unix:/path" or "none"')
    try:
        return Endpoint.parse(raw)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def endpoint(raw: object) -> Endpoint:
    """Where we connect to."""
    place = endpoint_or_none(raw)
    if place.is_none:
        raise ValueError('expected "IP:port" or "unix:/path"; this one is needed')
    return place


@dataclass(frozen=True, slots=True)
class LoginAt:
    """Where a program is, and how to log in there if that differs from the rest."""

    endpoint: Endpoint
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)


def login_at(raw: object) -> LoginAt:
    """`user:password@IP:port`; the part before the last "@" may be left out."""
    given = text(raw)
    login, at, place = ("", "", given) if given.startswith("unix:") else given.rpartition("@")
    username, colon, password = login.partition(":")
    if at and not (username and colon):
        raise ValueError('expected "IP:port" or "user:password@IP:port"')
    where = endpoint(place)
    return LoginAt(where, username, password) if at else LoginAt(where)


def flags(raw: object) -> Isolate:
    """A list of isolation flags, named as in tor(1) with or without `Isolate`."""
    known = ", ".join(f'"{name}"' for name in FLAG_NAMES)
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise ValueError(f"expected a list of {known}")
    for item in raw:
        try:
            parse_isolation([item])
        except ValueError:
            meant = difflib.get_close_matches(item, FLAG_NAMES, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown isolation flag (did you mean {meant}?); known: {known}"
            ) from None
    return parse_isolation(raw)


def optional(read: Reader[T]) -> Reader[T | None]:
    """TOML has no null: a setting that is unset by default cannot be set to nothing."""
    return read


def permissions(raw: object) -> Mode:
    if not isinstance(raw, str) or not re.fullmatch(r"0[0-7]{3}", raw):
        raise ValueError('expected octal permissions in quotes, such as "0660"')
    return Mode(int(raw, 8))


def several(read: Reader[T], *, distinct: bool = True) -> Reader[tuple[T, ...]]:
    def read_all(raw: object) -> tuple[T, ...]:
        if not isinstance(raw, list):
            raise ValueError("expected a list in brackets")
        values = tuple(read(item) for item in raw)
        if distinct and len(set(values)) < len(values):
            raise ValueError("the same item is listed twice")
        return values

    return read_all


def ip_network(raw: object) -> str:
    """An IP network such as 10.152.152.0/24, in canonical form."""
    if not isinstance(raw, str):
        raise ValueError("expected an IP network in quotes")
    try:
        return str(ipaddress.ip_network(raw))
    except ValueError:
        raise ValueError('expected an IP network, such as "10.152.152.11/32"') from None


def host_and_port(raw: object) -> str:
    """`host:port` for a peer reached through Tor; the host may be a name."""
    grammar = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,249}):([0-9]{1,5})"
    found = re.fullmatch(grammar, raw) if isinstance(raw, str) else None
    if found is None or int(found[2]) > 0xFFFF:
        raise ValueError('expected "host:port"')
    return found[0]


def mapping(key: Reader[str], value: Reader[T]) -> Reader[Mapping[str, T]]:
    def read(raw: object) -> Mapping[str, T]:
        if not isinstance(raw, dict):
            raise ValueError("expected a table in braces, such as { key = value }")
        return FrozenMapping((key(k), value(v)) for k, v in raw.items())

    return read


class FrozenMapping(dict[str, T]):
    """A read-only mapping that hashes and compares by content."""

    def __setitem__(self, key: str, value: T) -> None:
        raise TypeError("settings do not change")

    def __delitem__(self, key: str) -> None:
        raise TypeError("settings do not change")

    def __hash__(self) -> int:  # type: ignore[override]  # dict sets it to None
        return hash(frozenset(self.items()))
