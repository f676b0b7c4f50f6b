"""On which line of a TOML document each key stands.

`tomllib` returns values without positions.  This walks over a document that `tomllib`
has already accepted, so it need not check anything: it only has to step over strings,
comments and brackets rightly.  Keys inside of inline tables and lists are not told
apart; they count to the line of the key that holds them.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'(?:.|\n)*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)


def key_lines(document: str) -> dict[Path, int]:
    """Line numbers, from 1, of all table headers and keys; indices number `[[tables]]`."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    at = _skip(_BLANK, document, 0)
    while at < len(document):
        line = document.count("\n", 0, at) + 1
        if document[at] == "[":
            repeated = document.startswith("[[", at)
            names, at = _key(document, at + (2 if repeated else 1))
            table = _table_path(names, counts, repeated=repeated)
            at += 2 if repeated else 1
            path = table
        else:
            names, at = _key(document, at)
            path = table + names
            at = _end_of_value(document, at + 1)
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
        at = _skip(_BLANK, document, at)
    return lines


def _skip(pattern: re.Pattern[str], document: str, at: int) -> int:
    found = pattern.match(document, at)
    return found.end() if found else at


def _key(document: str, at: int) -> tuple[Path, int]:
    """A dotted key and the position of what follows it."""
    names: list[str | int] = []
    while True:
        part = _KEY_PART.match(document, _skip(_SPACE, document, at))
        if part is None:
            return tuple(names), at
        names.append(part[0].strip("\"'"))
        at = _skip(_SPACE, document, part.end())
        if not document.startswith(".", at):
            return tuple(names), at
        at += 1


def _table_path(names: Path, counts: dict[Path, int], *, repeated: bool) -> Path:
    """The header's path with the indices of the arrays of tables that it is in."""
    path: Path = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if repeated and position == len(names) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _end_of_value(document: str, at: int) -> int:
    depth = 0
    while at < len(document):
        character = document[at]
        if character in "\"'":
            at = max(at + 1, _skip(_STRING, document, at))
            continue
        if character == "#":
            at = document.find("\n", at)
            if at < 0:
                return len(document)
            continue
        if character == "\n" and depth == 0:
            return at
        depth += (character in "[{") - (character in "]}")
        at += 1
    return at
