"""Settings with their origin: files, drop-ins and `--set`, merged into one tree.

Later wins: a table is merged key by key, a value is replaced.  `[[tables]]` of a later
file are added, except that one with the same identity (its `address`, or its `name`)
replaces the earlier one; so a drop-in can both add a listener and change one.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from isoproxy.config.lines import Path as KeyPath
from isoproxy.config.lines import key_lines

_MAX_FILE_BYTES = 1 << 20
_MAX_DEPTH = 16
"""No setting lies deeper; what does is kept as TOML gave it, and found to be an unknown key."""
_IDENTITY_KEYS = ("address", "socks", "name", "target")
_INDEX = re.compile(r"[0-9]{1,6}", re.ASCII)
_POSITION = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


@dataclass(slots=True)
class Leaf:
    """One value as TOML gave it, and where it was written."""

    value: object
    where: str


@dataclass(slots=True)
class Table:
    where: str
    items: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True)
class Tables:
    where: str
    items: list[Table] = field(default_factory=list)


Node = Leaf | Table | Tables


def read_file(path: Path, problems: list[str]) -> Table:
    """The settings of one file; what is wrong with it is added to `problems`."""
    try:
        data = _contents(path)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}; check the path and its owner")
        return Table(str(path))
    if data is None:
        problems.append(f"{path}: is not a file; a configuration is read again at every reload")
        return Table(str(path))
    return read_document(str(path), data, problems)


def _contents(path: Path) -> bytes | None:
    """At most a little more than is allowed; None for what can be read once, or never ends."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) and path != Path(os.devnull):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def read_document(name: str, data: bytes, problems: list[str]) -> Table:
    """The settings of a TOML document that messages call `name`."""
    if len(data) > _MAX_FILE_BYTES:
        problems.append(f"{name}: larger than {_MAX_FILE_BYTES} bytes; split it into drop-ins")
        return Table(name)
    try:
        document = data.decode("utf-8-sig").replace("\r\n", "\n")  # some editors mark UTF-8
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.append(f"{name}:{line}: not UTF-8; save the file in that encoding")
        return Table(name)
    try:
        raw = tomllib.loads(document)
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax_problem(name, document, str(error)))
    except (ValueError, RecursionError):
        problems.append(f"{name}: not TOML: nested too deeply or a number too long")
    else:
        lines = key_lines(document)
        return _table(raw, (), lambda path: f"{name}:{_line(lines, path)}")
    return Table(name)


def read_option(text: str, problems: list[str]) -> Table:
    """The setting of one `--set key=value`; a value that is not TOML is taken as text."""
    key, separator, value = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    where = f"--set {key.strip()}"
    if not separator or not all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names):
        problems.append("--set: expected key=value, such as tor.mode=system")
        return Table(where)
    try:
        parsed: object = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        parsed = value.strip()
    raw = {names[-1]: parsed}
    for name in reversed(names[:-1]):
        raw = {name: raw}
    return _table(raw, (), lambda _: where)


def merge(base: Table, later: Table) -> None:
    """Put the settings of `later` over those of `base`."""
    for key, node in later.items.items():
        old = base.items.get(key)
        if isinstance(old, Table) and isinstance(node, Table):
            merge(old, node)
        elif isinstance(old, Tables) and isinstance(node, Tables):
            _merge_tables(old, node)
        elif isinstance(old, Tables) and isinstance(node, Table):
            _merge_by_index(old, node)
        else:
            base.items[key] = node


def _merge_tables(base: Tables, later: Tables) -> None:
    earlier = {_identity(table): index for index, table in enumerate(base.items)}
    for table in later.items:
        index = earlier.get(_identity(table))
        if index is None:
            base.items.append(table)
        else:
            base.items[index] = table


def _merge_by_index(base: Tables, later: Table) -> None:
    """`--set listener.0.address=...`: the key is the table's number, from 0."""
    for key, node in later.items.items():
        index = int(key) if _INDEX.fullmatch(key) else -1
        if isinstance(node, Table) and 0 <= index < len(base.items):
            merge(base.items[index], node)
        elif isinstance(node, Table) and index == len(base.items):
            base.items.append(node)
        else:  # found to be an unknown key when the configuration is built
            base.items.append(Table(later.where, {key: node}))


def plain(node: Node) -> object:
    """The value as TOML gave it, without origins."""
    match node:
        case Leaf():
            return node.value
        case Table():
            return {key: plain(item) for key, item in node.items.items()}
        case Tables():
            return [plain(item) for item in node.items]


def _identity(table: Table) -> object:
    for key in _IDENTITY_KEYS:
        leaf = table.items.get(key)
        if isinstance(leaf, Leaf) and isinstance(leaf.value, str):
            return leaf.value.partition(" ")[0]
    return id(table)


def _table(raw: dict[str, object], path: KeyPath, where: Callable[[KeyPath], str]) -> Table:
    table = Table(where(path))
    for key, value in raw.items():
        table.items[key] = _node(value, (*path, key), where)
    return table


def _node(value: object, path: KeyPath, where: Callable[[KeyPath], str]) -> Node:
    if len(path) >= _MAX_DEPTH:
        return Leaf(value, where(path))
    if isinstance(value, dict):
        return _table(value, path, where)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        tables = Tables(where(path))
        for index, item in enumerate(value):
            tables.items.append(_table(item, (*path, index), where))
        return tables
    return Leaf(value, where(path))


def _line(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """The line of `path`, or of the nearest table around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _syntax_problem(path: str, document: str, message: str) -> str:
    found = _POSITION.fullmatch(message)
    if found is None:
        return f"{path}: not TOML: {message}"
    line = found[2] or document.count("\n") + 1
    return f"{path}:{line}: not TOML: {found[1]}"
