"""The two ends of a stream that is joined in between: over TLS, or plain over a circuit.

Theory of operation
    The TLS library works on bytes in memory; what it wants to send goes to the socket, and
    what it wants to read comes from there, a piece at a time.  An end without TLS has the
    same methods.

    A TLS peer that hangs up without its close_notify may have been cut off by somebody
    (`is_cut`).  That is passed on as what it is: the other side is ended without one, too.

Invariants
    No more is read from a socket than the library asks for, so memory is bounded by a piece
    for each direction.  What is written has been taken by the kernel when `write` returns.

Specification: RFC 8446 §6.1 (closure).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

PIECE: Final = 1 << 14
"""Bytes that are read at once; a TLS record holds as many."""
_T = TypeVar("_T")


class End(Protocol):
    """One side of a stream."""

    is_cut: bool
    """Whether it ended without saying so."""

    async def read(self) -> bytes:
        """What the other side says next; nothing at its end.  Raises OSError."""
        ...

    async def write(self, data: bytes) -> None:
        """Say this.  Raises OSError."""
        ...

    async def end(self, *, is_cut: bool) -> None:
        """Say nothing more; that it was cut is left to be seen.  Raises OSError."""
        ...


class PlainEnd:
    """A socket as it is."""

    is_cut = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self._sock, PIECE)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def end(self, *, is_cut: bool) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)


class TlsEnd:
    """A socket over which TLS is spoken.

    With `server_side` we answer, and `received` is what the client has said already;
    otherwise `host` is the name that we ask the server for.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        host: str | None = None,
        server_side: bool = False,
        received: bytes = b"",
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming.write(received)
        self.tls: Final = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=host
        )
        self._sending = asyncio.Lock()
        self.has_heard = bool(received)
        """Whether the other side has said anything at all."""
        self.is_cut = False

    async def handshake(self) -> None:
        """Shake hands; raises OSError (ssl.SSLError among them)."""
        try:
            await self._run(self.tls.do_handshake)
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                await self._flush()  # the alert that says why
            raise

    async def read(self) -> bytes:
        try:
            return await self._run(lambda: self.tls.read(PIECE))
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError:
            self.is_cut = True
            return b""

    async def write(self, data: bytes) -> None:
        self.tls.write(data)  # memory takes all of it
        await self._flush()

    async def end(self, *, is_cut: bool) -> None:
        if not is_cut:
            with contextlib.suppress(ssl.SSLError):  # it waits for the other side's
                self.tls.unwrap()
            await self._flush()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    async def _run(self, step: Callable[[], _T]) -> _T:
        """The result of `step`, which is tried until it wants no more bytes."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._answer()
                data = await self._loop.sock_recv(self._sock, PIECE)
                self.has_heard = self.has_heard or bool(data)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._answer()
                return result

    async def _answer(self) -> None:
        """Send what reading made the library say, unless somebody is sending already.

        Who reads waits for no writer: two sides that did would wait for each other.
        """
        if self._outgoing.pending and not self._sending.locked():
            await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            while data := self._outgoing.read():
                await self._loop.sock_sendall(self._sock, data)
