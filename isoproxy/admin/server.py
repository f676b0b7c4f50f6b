"""The daemon's side of the admin socket; see the package for what is said there.

Invariants
    Only root and the user we run as are answered; the kernel says who the client is.  Requests
    are bounded in length, number and time.  What a handler raises unforeseen is logged
    by type and answered without detail.  Answers hold what the handler put in: it is the
    handler that must leave out what identifies.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from isoproxy.errors import IsoproxyError, OperationError
from isoproxy.net import unix_socket
from isoproxy.net.accept_loop import Connections, streams
from isoproxy.net.listening import ListeningSocket
from isoproxy.net.unix_socket import peer_credentials, trusted_users
from isoproxy.observe.log import logger

Answer = Mapping[str, object]
Handler = Callable[[Mapping[str, Any]], Awaitable[Answer]]

MAX_REQUEST: Final = 64 * 1024
"""Bytes of one request's line."""
_MAX_CLIENTS: Final = 32
_IDLE_S: Final = 60.0

_log = logger("admin")


class AdminServer:
    """Answers requests at `path`; `register` what can be asked, then `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handlers: dict[str, Handler] = {}
        self._listening: ListeningSocket | None = None
        self._connections = Connections(self._client, self._is_full)

    def register(self, request: str, handler: Handler) -> None:
        """Have `handler` answer `request`; it gets all members of the request's object."""
        self._handlers[request] = handler

    async def open(self) -> None:
        """Listen.  Raises OperationError when another isoproxy does, or the place is bad."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sock, file = unix_socket.listen(str(self.path), 0o600)
        except OSError as error:
            advice = (
                "stop it, or give this one listeners, a STATE_DIRECTORY and an observe.admin of "
                "its own"
                if error.errno == errno.EADDRINUSE
                else "set observe.admin to unix:/path, a path that this user may write"
            )
            raise OperationError(
                f"the admin socket {self.path} cannot be made: {error.strerror}; {advice}"
            ) from None
        self._listening = ListeningSocket(sock, file)
        self._connections.start(sock)

    async def close(self) -> None:
        """Stop listening, end the clients, remove the socket."""
        await self._connections.close()
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _is_full(self, clients: int) -> bool:
        if clients >= _MAX_CLIENTS:
            _log.warn("admin_refused", clients=clients)
            return True
        return False

    async def _client(self, sock: socket.socket) -> None:
        try:
            if peer_credentials(sock).uid not in trusted_users():
                _log.warn("admin_refused", clients=len(self._connections))
                sock.close()
                return
            async with streams(sock, MAX_REQUEST) as (reader, writer):
                await self._serve(reader, writer)
        except (OSError, TimeoutError):
            _log.debug("admin_client_gone")
        except asyncio.CancelledError:
            _log.debug("admin_client_ended")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_IDLE_S):
                try:
                    line = await reader.readuntil(b"\n")
                except asyncio.IncompleteReadError:
                    return
                except asyncio.LimitOverrunError:
                    writer.write(_encode(_failure("the request is too long")))
                    await writer.drain()
                    return
            answer = await self._answer(line)
            async with asyncio.timeout(_IDLE_S):
                writer.write(_encode(answer))
                await writer.drain()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _failure("the request is not JSON")
        name = request.get("request") if isinstance(request, dict) else None
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            return _failure("unknown request; the running isoproxy may be of another version")
        try:
            return {"ok": True, **await handler(request)}
        except IsoproxyError as error:
            return _failure(str(error))
        except Exception as error:
            _log.err("internal_error", error=error)
            return _failure("isoproxy has a defect; see its log and report it")


def _failure(text: str) -> Answer:
    return {"ok": False, "error": text}


def _encode(answer: Answer) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"
