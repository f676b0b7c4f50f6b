"""The command line: one module per group of commands, each registering its own.

Exit codes: 0 success, 1 the operation failed, 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from isoproxy import __version__
from isoproxy.cli import (
    bitcoin,
    control,
    dial,
    dns,
    doctor,
    exec,
    names,
    publish,
    service,
    tls,
    tor,
    transparent,
)
from isoproxy.cli.arguments import Parser, refuse_misplaced
from isoproxy.cli.options import Commands
from isoproxy.errors import ConfigError, IsoproxyError, OperationError

SUCCESS: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
_CANNOT_WRITE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

GROUPS: Final[tuple[Callable[[Commands], None], ...]] = (
    service.register,
    control.register,
    names.register,
    doctor.register,
    dns.register,
    tor.register,
    tls.register,
    publish.register,
    dial.register,
    exec.register,
    bitcoin.register,
    transparent.register,
)
"""Each adds its commands to the parser; what it sets as `run` is called with the
arguments and returns the exit code, or raises IsoproxyError."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top: argparse.ArgumentParser = Parser(
        prog="isoproxy",
        description="A front door to Tor that keeps separate activities on separate circuits.",
        epilog="Exit codes: 0 success, 1 the operation failed, 2 usage or configuration.",
    )
    top.add_argument("--version", action="version", version=f"isoproxy {__version__}")
    refuse_misplaced(top)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for register in GROUPS:
        register(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _occupy_standard_descriptors()
    options = parser().parse_args(arguments)
    if sys.stderr is None:  # closed: what belongs there must not go to standard output
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- as long as we live
    try:
        code: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as error:
        return _complain(error, USAGE)
    except IsoproxyError as error:
        return _complain(error, FAILURE)
    except BrokenPipeError:  # the reader of our output had enough
        sys.stderr.close()
        return FAILURE
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        return _complain(_unwritten(error), FAILURE)
    except KeyboardInterrupt:
        return FAILURE
    return code


def _occupy_standard_descriptors() -> None:
    """Open nothing in place of what is closed, or a socket of ours would be taken for it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _unwritten(error: OSError) -> OperationError:
    """What to say of output that cannot be written; the rest of it is thrown away."""
    if sys.stdout is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return OperationError(
        f"writing failed: {error.strerror}; make room where standard output, or the state, goes"
    )


def _complain(error: IsoproxyError, code: int) -> int:
    for line in str(error).splitlines():
        print(f"isoproxy: {line}", file=sys.stderr)
    return code
