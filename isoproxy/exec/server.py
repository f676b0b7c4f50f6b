"""The running isoproxy's side: sockets of namespaces come in, and are let go with their program.

Theory of operation
    Who connects is asked of the kernel (SO_PEERCRED), and the sockets are looked at.  A pidfd
    of the process that connected, which becomes the program, tells when that has ended
    (pidfd_open(2)).

Invariants
    Only root and the user we run as are served ([why](docs/decisions/0030-exec-socket.md)):
    whoever holds a socket that listens can have the process that accepts on it wait.
    Requests are bounded in length, number and time.  Nothing here says how a program is served.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from isoproxy.errors import IsoproxyError, OperationError
from isoproxy.exec.handover import Request, received
from isoproxy.front.transparent import Program
from isoproxy.isolation import client_of_uid
from isoproxy.net import unix_socket
from isoproxy.net.accept_loop import Connections
from isoproxy.net.listening import ListeningSocket
from isoproxy.net.unix_socket import peer_credentials, trusted_users
from isoproxy.observe.log import logger

REQUEST_S: Final = 10.0
_MAX_CLIENTS: Final = 32

_log: Final = logger("exec")

Begin = Callable[[Program, int, Sequence[socket.socket]], Callable[[], None]]
"""Serve a program on so many listeners and the sockets for DNS that follow them; what it returns
ends that.  Raises OperationError."""


class ExecServer:
    """Takes sockets at `path`; `hide` are the paths that a program must not find."""

    def __init__(self, path: Path, begin: Begin, hide: Callable[[], list[str]]) -> None:
        self.path: Final = path
        self._begin: Final = begin
        self._hide: Final = hide
        self._listening: ListeningSocket | None = None
        self._connections = Connections(self._client, lambda count: count >= _MAX_CLIENTS)
        self._ends: Final[dict[int, Callable[[], None]]] = {}
        """By pidfd of its program, what ends the service."""

    def __len__(self) -> int:
        """How many programs are served."""
        return len(self._ends)

    async def open(self) -> None:
        """Listen; raises OperationError."""
        try:
            sock, file = unix_socket.listen(str(self.path), 0o600)
        except OSError as error:
            raise OperationError(
                f"the socket {self.path} of isoproxy exec cannot be made: {error.strerror}; set "
                "observe.admin to unix:/path, beside which this user may write"
            ) from None
        self._listening = ListeningSocket(sock, file)
        self._connections.start(sock)

    async def close(self) -> None:
        """Listen no more, and serve no program any more."""
        await self._connections.close()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for pidfd in list(self._ends):
            self._ended(pidfd)

    async def _client(self, sock: socket.socket) -> None:
        with sock:
            if peer_credentials(sock).uid not in trusted_users():
                _log.warn("exec_refused")
                return
            try:
                async with asyncio.timeout(REQUEST_S):
                    await self._readable(sock)
                answer = self._answer(sock)
                sock.send(json.dumps(answer).encode() + b"\n")
            except (OSError, TimeoutError):
                _log.debug("exec_client_gone")

    def _answer(self, sock: socket.socket) -> dict[str, object]:
        line, sockets = received(sock)
        try:
            self._serve(Request.decode(line), sock, sockets)
        except (IsoproxyError, ValueError) as error:
            for each in sockets:
                each.close()
            text = str(error) if isinstance(error, IsoproxyError) else "this is no request"
            return {"error": text}
        return {"hide": self._hide()}

    def _serve(
        self, request: Request, client: socket.socket, sockets: Sequence[socket.socket]
    ) -> None:
        if not _are_of_use(sockets, request.listeners):
            raise OperationError("these sockets are of no use; is this command of this version?")
        credentials = peer_credentials(client)
        try:
            pidfd = os.pidfd_open(credentials.pid)
        except OSError as error:
            raise OperationError(f"the program cannot be watched: {error.strerror}") from None
        try:
            program = _program(credentials.uid, request.isolation)
            self._ends[pidfd] = self._begin(program, request.listeners, sockets)
        except BaseException:
            os.close(pidfd)
            raise
        asyncio.get_running_loop().add_reader(pidfd, self._ended, pidfd)
        _log.info("program_began", programs=len(self._ends))

    def _ended(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self._ends.pop(pidfd)()
        _log.info("program_ended", programs=len(self._ends))

    @staticmethod
    async def _readable(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_reader(sock, arrived.set)
        try:
            await arrived.wait()
        finally:
            loop.remove_reader(sock)


def _program(user: int, isolation: str | None) -> Program:
    if isolation is None:
        return Program(client_of_uid(user), None, os.urandom(32))
    return Program(client_of_uid(user), isolation.encode("utf-8", "surrogateescape"), None)


def _are_of_use(sockets: Sequence[socket.socket], listeners: int) -> bool:
    """Whether so many listen for TCP, and the rest, at least one, are for UDP."""
    if not 0 < listeners < len(sockets):
        return False
    return all(_accepts(sock) for sock in sockets[:listeners]) and all(
        _is(sock, socket.SOCK_DGRAM) for sock in sockets[listeners:]
    )


def _is(sock: socket.socket, kind: socket.SocketKind) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == kind


def _accepts(sock: socket.socket) -> bool:
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return _is(sock, socket.SOCK_STREAM) and bool(listens)
