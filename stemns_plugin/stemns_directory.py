"""Reads StemNS's `config/` directory without running what is in it.

Theory of operation
    StemNS is configured by Python files that it executes.  Those that people have assign a
    dictionary from suffixes to commands, and define a function that returns the number of
    the control port.  Both are read here as data: the files are parsed, and expressions
    of a small kind are evaluated by hand (constants, names assigned in the same file,
    lists, dictionaries, `sys.executable`, and joining a path to the directory of the file).
    A function that opens a file and looks for `PORT=` in it (StemNS's `port_auto.py`) reads
    what Tor's ControlPortWriteToFile wrote; `ControlPortFile` reads the same file.

Invariants
    No code of these files is executed.  What cannot be read as data is an error that names
    the file and the line; nothing is skipped silently.  Callbacks have no counterpart here
    and are ignored: `stemns` follows Tor by itself.
"""

from __future__ import annotations

import ast
import contextlib
import os.path
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError, ErrorKind, OperationError
from isoproxy.net.endpoint import Endpoint

_SERVICES: Final = frozenset({"service_to_command", "_service_to_command"})
_PORT: Final = "tor_control_port"
_MAX_PORT_FILE: Final = 4096


@dataclass(frozen=True, slots=True)
class ControlPortFile:
    """The file into which Tor writes where its control port is (ControlPortWriteToFile)."""

    path: Path

    def read(self) -> Endpoint:
        """Where the control port is now; raises OperationError."""
        try:
            with self.path.open(encoding="ascii") as file:
                lines = file.read(_MAX_PORT_FILE).split("\n")
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            for key, prefix in (("PORT=", ""), ("UNIX_PORT=", "unix:")):
                if line.startswith(key):
                    with contextlib.suppress(ConfigError):
                        return Endpoint.parse(prefix + line.removeprefix(key).strip())
        raise OperationError(
            f"Tor has not written its control port into {self.path}; start Tor, or correct "
            "ControlPortWriteToFile in its torrc",
            kind=ErrorKind.TOR_UNREACHABLE,
        )


@dataclass(slots=True)
class StemnsDirectory:
    """What the files say: commands by suffix, and where the control port is, if they do."""

    services: dict[str, list[str]] = field(default_factory=dict)
    control_port: int | ControlPortFile | None = None


def read_directory(directory: Path) -> StemnsDirectory:
    """The files in `directory`, later ones over earlier ones; raises ConfigError."""
    result = StemnsDirectory()
    try:
        files = sorted(directory.glob("*.py"))
        for file in files:
            _read_file(file, file.read_text("utf-8"), result)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or directory}: cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{directory}: a file in it is not UTF-8; save it in that encoding"
        ) from None
    if not files:
        raise ConfigError(f"{directory}: there is no .py file of StemNS's configuration in it")
    return result


def _read_file(file: Path, text: str, result: StemnsDirectory) -> None:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{file}: not a Python file: {error}") from None
    reader = _Reader(file, module)
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == _PORT:
            result.control_port = reader.port(statement)
        for name, value in _assignments(statement):
            if name in _SERVICES:
                result.services.update(reader.services(value))
            elif name == _PORT:
                result.control_port = reader.number(value)
        if not isinstance(statement, ast.FunctionDef) and not _assignments(statement):
            reader.refuse_changes(statement)


def _opened_for_port(function: ast.FunctionDef) -> ast.expr | None:
    """What a function opens that looks for `PORT=`."""
    nodes = list(ast.walk(function))
    if not any(isinstance(node, ast.Constant) and node.value == "PORT=" for node in nodes):
        return None
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="open"), args=[path, *_]):
                return path
    return None


def _assignments(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    if not isinstance(statement, ast.Assign):
        return []
    return [(t.id, statement.value) for t in statement.targets if isinstance(t, ast.Name)]


class _Reader:
    """Evaluates the expressions of one file."""

    def __init__(self, file: Path, module: ast.Module) -> None:
        self._file = file
        self._names: Mapping[str, ast.expr] = dict(
            pair for statement in module.body for pair in _assignments(statement)
        )

    def _wrong(self, node: ast.AST, what: str) -> ConfigError:
        line = getattr(node, "lineno", 1)
        return ConfigError(
            f"{self._file}:{line}: {what}; write it in the file given with -c, under [services]"
        )

    def refuse_changes(self, statement: ast.stmt) -> None:
        """Services that another statement than a plain assignment adds would be missed."""
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id in _SERVICES:
                raise self._wrong(node, "the services are changed by more than an assignment")

    def port(self, function: ast.FunctionDef) -> int | ControlPortFile:
        """What a function of one `return` gives, or the file in which one looks for it."""
        opened = _opened_for_port(function)
        if opened is not None:
            path = self._value(opened, 0)
            if isinstance(path, str):
                return ControlPortFile(Path(path))
        body = [one for one in function.body if not isinstance(one, ast.Expr)]
        if len(body) == 1 and isinstance(body[0], ast.Return) and body[0].value is not None:
            return self.number(body[0].value)
        raise self._wrong(function, "the control port is not a plain number")

    def number(self, node: ast.expr) -> int:
        """A control port's number."""
        value = self._value(node, 0)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
            return value
        raise self._wrong(node, "the control port is not a plain number")

    def services(self, node: ast.expr) -> dict[str, list[str]]:
        """A dictionary from suffixes to lists of words."""
        value = self._value(node, 0)
        if not isinstance(value, dict):
            raise self._wrong(node, "the services are not a plain dictionary")
        for suffix, command in value.items():
            words = command if isinstance(command, list) else []
            if (
                not isinstance(suffix, str)
                or not words
                or not all(isinstance(word, str) for word in words)
            ):
                raise self._wrong(node, "a service is not a suffix and a list of words")
        return value

    def _value(self, node: ast.expr, depth: int) -> object:
        if depth > 16:
            raise self._wrong(node, "this expression is nested too deeply")
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple():
                return [self._value(one, depth + 1) for one in node.elts]
            case ast.Dict():
                return {
                    self._key(key, node, depth): self._value(value, depth + 1)
                    for key, value in zip(node.keys, node.values, strict=True)
                }
            case ast.Name(id="__file__"):
                return str(self._file)
            case ast.Name() if node.id in self._names:
                return self._value(self._names[node.id], depth + 1)
            case ast.Attribute(value=ast.Name(id="sys"), attr="executable"):
                return sys.executable
            case ast.Subscript(value=ast.Call(), slice=ast.Constant(value=int() as place)):
                parts = self._value(node.value, depth + 1)
                if isinstance(parts, list) and -len(parts) <= place < len(parts):
                    return parts[place]
            case ast.Call(keywords=[]):
                return self._call(node, depth)
        raise self._wrong(node, "this is not a plain value")

    def _key(self, key: ast.expr | None, node: ast.expr, depth: int) -> str:
        value = None if key is None else self._value(key, depth + 1)
        if not isinstance(value, str):
            raise self._wrong(node, "a suffix is not a plain text")
        return value

    def _call(self, node: ast.Call, depth: int) -> object:
        """`join`, `split` and `dirname` of os.path, on texts."""
        function = node.func
        name = function.id if isinstance(function, ast.Name) else ""
        if isinstance(function, ast.Attribute):
            name = function.attr
        words = [self._value(one, depth + 1) for one in node.args]
        texts = [word for word in words if isinstance(word, str)]
        if len(texts) == len(words) and texts:
            if name == "join":
                return os.path.join(*texts)
            if name == "split" and len(texts) == 1:
                return list(os.path.split(texts[0]))
            if name == "dirname" and len(texts) == 1:
                return os.path.dirname(texts[0])
        raise self._wrong(node, "this call is not a plain value")
