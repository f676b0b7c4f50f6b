"""One authenticated control connection on the event loop.

Theory of operation
    Requests are written in order and Tor answers them in order, so the futures of those
    that wait form a queue.  A request that was cancelled stays in the queue: its reply
    is taken out and dropped, and cannot be mistaken for the next one's.

Invariants
    A reply to which there is no request is dropped and counted.  A request without a
    reply ends the connection, because the order is all that tells replies apart.  When
    the connection ends, every request fails at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from isoproxy.errors import ErrorKind, OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.wire import MessageSplitter, Reply, parse_reply

REPLY_S: Final = 30.0
_MAX_REQUESTS: Final = 64
_READ: Final = 64 * 1024


def not_connected() -> OperationError:
    return OperationError(
        "Tor's control port is not connected; see tor.control in the configuration and "
        "'isoproxy status'",
        kind=ErrorKind.TOR_UNREACHABLE,
    )


async def connect(endpoint: Endpoint) -> socket.socket:
    """A connected, non-blocking socket to the control port."""
    loop = asyncio.get_running_loop()
    address: str | tuple[str, int]
    if endpoint.path is not None:
        family, address = socket.AF_UNIX, endpoint.path
    else:
        assert endpoint.host is not None
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        address = (endpoint.host, endpoint.port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class Session:
    """One authenticated connection: requests go out, replies and events come in."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[bytes], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self.unexpected_replies = 0

    async def request(self, text: str) -> Reply:
        """Send one line and wait for its reply; no reply in time ends the connection."""
        if len(self._waiting) >= _MAX_REQUESTS:
            raise OperationError("too many control requests are under way", kind=ErrorKind.BUSY)
        if self._writer.is_closing():
            raise not_connected()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        self._writer.write(text.encode() + b"\r\n")
        try:
            async with asyncio.timeout(REPLY_S):
                return await reply
        except TimeoutError:
            self._writer.transport.abort()
            raise OperationError(
                "Tor did not answer at its control port; isoproxy connects to it anew",
                kind=ErrorKind.TOR_UNREACHABLE,
            ) from None

    async def read(self) -> None:
        """Hand out what comes until the connection ends."""
        splitter = MessageSplitter()
        try:
            while data := await self._reader.read(_READ):
                for message in splitter.feed(data):
                    self._deliver(message)
        finally:
            self._writer.transport.abort()
            while self._waiting:
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_exception(not_connected())

    def _deliver(self, message: bytes) -> None:
        if message.startswith(b"650"):
            self._on_event(message)
        elif not self._waiting:
            self.unexpected_replies += 1
        elif not (waiting := self._waiting.popleft()).done():
            waiting.set_result(parse_reply(message))

    async def close(self) -> None:
        """Close the connection and wait until it is closed."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
