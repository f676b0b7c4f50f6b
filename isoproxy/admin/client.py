"""The commands' side of the admin socket: one question, one answer, blocking."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

from isoproxy.config.paths import start_command
from isoproxy.errors import OperationError

MAX_ANSWER: Final = 64 * 1024 * 1024
_NOT_RUNNING: Final = (FileNotFoundError, ConnectionRefusedError)


class NotRunning(OperationError):
    """No isoproxy listens there."""


def ask(
    path: Path, request: str, *, timeout_s: float = 30.0, **arguments: object
) -> dict[str, Any]:
    """Blocking: the answer of the isoproxy that listens at `path`, without `ok`.

    Raises NotRunning when there is none, OperationError when it says that it could not.
    """
    line = json.dumps({"request": request, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            sock.sendall(line)
            with sock.makefile("rb") as file:
                answer = json.loads(file.readline(MAX_ANSWER) or b"null")
    except _NOT_RUNNING:
        raise NotRunning(
            f"no isoproxy listens at {path}; start it with: {start_command()}"
        ) from None
    except OSError as error:
        raise OperationError(_unreachable(path, error)) from None
    except ValueError:
        raise OperationError(f"what listens at {path} is no isoproxy") from None
    if not isinstance(answer, dict):
        raise OperationError("the running isoproxy closed the connection; it may be stopping")
    if not answer.pop("ok", False):
        raise OperationError(str(answer.get("error", "the running isoproxy refused")))
    return answer


def _unreachable(path: Path, error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "the running isoproxy does not answer; see its log"
    if isinstance(error, PermissionError):
        return f"this user may not use {path}; ask as the user that isoproxy runs as, or as root"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the running isoproxy hung up: it is stopping, busy, or runs as another user"
    return f"{path} cannot be used: {error.strerror}"
