"""Accepting connections for as long as a socket listens, and ending them with it.

Invariants
    The number of connections is bounded.  Running out of descriptors pauses the accepting:
    the clients wait in the kernel's backlog.  When `serve` returns no connection is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

FD_EXHAUSTION_PAUSE_S: Final = 0.25


class Connections:
    """What came in on one listening socket; `handle` serves one client to its end.

    `full` says whether one more is too many, and counts that; it is asked with the number
    of connections open.
    """

    def __init__(
        self, handle: Callable[[socket.socket], Awaitable[None]], full: Callable[[int], bool]
    ) -> None:
        self._handle = handle
        self._full = full
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._accepting: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    async def serve(self, listener: socket.socket) -> None:
        """Accept until `stop`, and serve who is there to the end; cancelled, end all."""
        self._accepting = asyncio.create_task(self._accept_all(listener))
        try:
            await asyncio.wait([self._accepting])
            if not self._accepting.cancelled():
                self._accepting.result()
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            ending = (self._accepting, *self._tasks)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def stop(self) -> None:
        """Accept no more; on return the listening socket may be closed."""
        self._stopped = True
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)

    def start(self, listener: socket.socket) -> None:
        """`serve` in the background, until `close`."""
        self._serving = asyncio.create_task(self.serve(listener), name="accepting")

    async def close(self) -> None:
        """End what `start` began, and all connections."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None

    async def _accept_all(self, listener: socket.socket) -> None:
        while not self._stopped:
            sock = await self._accept(listener)
            if self._full(len(self._tasks)):
                sock.close()
                continue
            sock.setblocking(False)
            task = asyncio.create_task(self._served(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _served(self, sock: socket.socket) -> None:
        await self._handle(sock)

    @staticmethod
    async def _accept(listener: socket.socket) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptors left, or one that gave up before its turn
                await asyncio.sleep(FD_EXHAUSTION_PAUSE_S)
            else:
                return sock


@contextlib.asynccontextmanager
async def streams(
    sock: socket.socket, limit: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A reader, whose lines have at most `limit` bytes, and a writer; they own `sock`."""
    try:
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    except BaseException:
        sock.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.close()
