"""What commands are told past the command line, which is in the list of processes.

Theory of operation
    `-` in place of a name or a target is a line of standard input.  An isolation ID may be
    in a file, `--isolation-file FILE`, and with `-` for FILE it is a line of standard input
    too, the one before the name.  Lines are read byte by byte: what follows the last of
    them is whoever's who reads on, as with `isoproxy dial` the stream.

Invariants
    Bytes stay what they are, as those of the command line do.  A file that other users
    may read hides nothing, and is refused.  So is one with more or less than one line:
    identities must not merge because half of an ID was read.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError

STANDARD_INPUT: Final = "-"
WARNING: Final = (
    "What stands on a command line is in the list of processes, for every user of the machine."
)
_MAX_LINE: Final = 4096
"""Bytes of a line or file; isolation IDs, user names and passwords have at most 255."""


def add_isolation(command: argparse.ArgumentParser, effect: str) -> None:
    """`--isolation ID` or `--isolation-file FILE`; `effect` says what the ID does."""
    either = command.add_mutually_exclusive_group()
    either.add_argument("--isolation", metavar="ID", help=effect)
    either.add_argument(
        "--isolation-file",
        metavar="FILE",
        help="read the ID from a file that nobody else may read, or with - from a line of "
        "standard input: what --isolation is given is in the list of processes",
    )


def isolation_id(options: argparse.Namespace) -> str | None:
    """The ID that `add_isolation` asked for, if any; ask before `word`.

    Raises ConfigError.
    """
    if options.isolation_file is None:
        return None if options.isolation is None else str(options.isolation)
    if options.isolation_file == STANDARD_INPUT:
        return _expected_line("isolation ID")
    return _file_line(Path(options.isolation_file))


def word(given: str, called: str) -> str:
    """What was given, or the next line of standard input for `-`; raises ConfigError."""
    return _expected_line(called) if given == STANDARD_INPUT else given


def input_line(called: str) -> str | None:
    """The next line of standard input, None at its end; a person is asked for it by name.

    Raises ConfigError if it is too long or cannot be read.
    """
    if sys.stdin is None:
        return None
    if sys.stdin.isatty():
        print(f"{called}: ", end="", file=sys.stderr, flush=True)
    line = bytearray()
    while len(line) < _MAX_LINE:
        try:
            byte = os.read(sys.stdin.fileno(), 1)
        except OSError as error:
            raise ConfigError(f"standard input cannot be read: {error.strerror}") from None
        if byte == b"\n":
            return _text(line)
        if not byte:
            return _text(line) if line else None
        line += byte
    raise ConfigError(f"standard input: a line has at most {_MAX_LINE - 1} bytes")


def _expected_line(called: str) -> str:
    line = input_line(called)
    if not line:
        raise ConfigError(f"-: expected the {called} as a line of standard input")
    return line


def _file_line(path: Path) -> str:
    """The one line of a private file, or of a pipe that a shell made."""
    option = f"--isolation-file {path}"
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_LINE)
    except OSError as error:
        raise ConfigError(f"{option}: cannot be read: {error.strerror}") from None
    if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(f"{option}: other users may use this file; chmod 600 it")
    line = content.removesuffix(b"\n")
    if not line or b"\n" in line or len(content) == _MAX_LINE:
        raise ConfigError(f"{option}: expected the isolation ID alone, in one line")
    return _text(line)


def _text(line: bytes | bytearray) -> str:
    """Text that becomes the same bytes again."""
    return line.decode("utf-8", "surrogateescape")
