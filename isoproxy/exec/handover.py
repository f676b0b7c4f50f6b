"""The sockets of a namespace, from the command to the running isoproxy (SCM_RIGHTS, unix(7)).

Theory of operation
    One request on a unix socket beside the admin socket: a line of JSON, and with it the
    sockets, those that listen first, then those for DNS.  The answer is a line of JSON: the
    paths of sockets that the program must not find, or why there is no way in.

Invariants
    Nothing is sent before the namespace is set up, and the program does not begin before the
    answer.  An isolation ID goes over the socket alone.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isoproxy.config.paths import start_command
from isoproxy.errors import OperationError

MAX_REQUEST: Final = 4096
MAX_SOCKETS: Final = 4
ANSWER_S: Final = 30.0


def exec_address(admin: Path) -> Path:
    """Where sockets are handed over to the isoproxy that has this admin socket."""
    return admin.with_name(admin.name + ".exec")


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """Serve a program: `listeners` of the sockets are for TCP, the rest for DNS.

    Programs of one user with one `isolation` are one identity; without it each is its own.
    """

    isolation: str | None
    listeners: int

    def encode(self) -> bytes:
        """One line, at most MAX_REQUEST bytes; raises OperationError."""
        line = json.dumps({"isolation": self.isolation, "listeners": self.listeners}).encode()
        if len(line) >= MAX_REQUEST:
            raise OperationError("the isolation ID is too long")
        return line + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Raises ValueError for anything else."""
        said = json.loads(line)
        if not isinstance(said, dict):
            raise ValueError("no object")
        isolation, listeners = said.get("isolation"), said.get("listeners")
        if not (isolation is None or isinstance(isolation, str)) or type(listeners) is not int:
            raise ValueError("of other types")
        return cls(isolation, listeners)


def connect(path: Path) -> socket.socket:
    """A connection to the isoproxy that takes sockets at `path`; raises OperationError."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(ANSWER_S)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        raise OperationError(
            f"no isoproxy listens at {path}; start it with: {start_command()}"
        ) from None
    except OSError as error:
        sock.close()
        raise OperationError(
            f"{path} cannot be used: {error.strerror}; programs are started by the user that "
            "isoproxy runs as, so start one of your own: isoproxy run"
        ) from None
    return sock


def give_sockets(
    sock: socket.socket, request: Request, sockets: Sequence[socket.socket]
) -> list[str]:
    """Blocking: have `sockets` served; the paths to hide.  Raises OperationError."""
    rights = array.array("i", [each.fileno() for each in sockets])
    try:
        sock.sendmsg([request.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        with sock.makefile("rb") as file:
            answer: Any = json.loads(file.readline(1 << 16) or b"null")
    except (OSError, ValueError) as error:
        raise OperationError(f"the running isoproxy does not answer: {error}") from None
    if not isinstance(answer, dict) or "hide" not in answer:
        why = answer.get("error") if isinstance(answer, dict) else None
        raise OperationError(str(why or "the running isoproxy hung up; see its log"))
    return [str(path) for path in answer["hide"]]


def received(sock: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """What one `recvmsg` brings, which does not block; raises OSError.

    What came beside sockets, or beyond MAX_SOCKETS, is closed.
    """
    space = socket.CMSG_SPACE(MAX_SOCKETS * 4)
    data, extra, flags, _ = sock.recvmsg(MAX_REQUEST, space, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, content in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    sockets = []
    for number in numbers:
        try:
            sockets.append(socket.socket(fileno=number))
        except OSError:
            with contextlib.suppress(OSError):
                os.close(number)
    if flags & socket.MSG_CTRUNC:
        for each in sockets:
            each.close()
        return data, []
    return data, sockets
