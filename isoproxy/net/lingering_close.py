"""Closing a connection so that the last bytes arrive: nginx's lingering close.

Theory of operation
    A socket that is closed with unread bytes in it resets its connection, and a reset may
    destroy what was sent just before, on its way or in the other end's own buffer (RFC 9293
    §3.10.4, RFC 9112 §9.6).  So after the last bytes the sending side is shut, and what the
    other end still sends is read and thrown away until it ends, for a moment at most.

    `LingeringClose` is driven by the reactor and costs no task.  `lingering_close` is for
    callers that await; it is content when all that was sent has been taken.

Invariants
    The socket is closed at the end, at most LINGER_S seconds later; a client that is
    refused may say MAX_DISCARDED bytes more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from isoproxy.net.deadlines import Deadlines
from isoproxy.net.reactor import Reactor, unsent

LINGER_S: Final = 10.0
"""Seconds that the other end is given to read what it was told."""
MAX_DISCARDED: Final = 1 << 18
_CHUNK: Final = 1 << 14
_LOOK_AGAIN_S: Final = 0.1
_DISCARDED_AT_A_TIME: Final = 1 << 16


class _Rest:
    """What the other end of `sock` says after the last bytes to it."""

    __slots__ = ("_discarded", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._discarded = 0

    def begin(self, last: bytes) -> bool:
        """Send the `last` bytes and shut the sending side; True when it has ended already."""
        try:
            if last:
                self._sock.send(last)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return True
        return self.discard()

    def discard(self) -> bool:
        """Throw away what is there; True when it has ended, broken, or said too much."""
        try:
            while data := self._sock.recv(_CHUNK):
                self._discarded += len(data)
                if self._discarded > MAX_DISCARDED:
                    break
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            pass
        return True


class LingeringClose:
    """Takes over a registered socket, sends `last` and closes it; then calls `ended` once."""

    __slots__ = ("_deadlines", "_ended", "_reactor", "_rest", "_sock")

    def __init__(
        self,
        reactor: Reactor,
        deadlines: Deadlines,
        sock: socket.socket,
        last: bytes,
        ended: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._sock = sock
        self._rest = _Rest(sock)
        self._ended: Callable[[], None] | None = ended
        reactor.set_handler(sock.fileno(), self)
        deadlines.set(self, LINGER_S)
        if self._rest.begin(last):
            self.abort()

    def on_events(self, fd: int, events: int) -> None:
        if self._ended is not None and self._rest.discard():
            self.abort()

    def on_deadline(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Close now; a second call does nothing."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._deadlines.clear(self)
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
            ended()


async def lingering_close(*socks: socket.socket, seconds: float = LINGER_S) -> None:
    """Announce the end on all of `socks`, and close each when its other end has all or has ended.

    They are connected, non-blocking, and watched by no one.  What the other ends still say
    is thrown away, however much it is.  Returns when all are closed, after `seconds` at the
    latest; cancelled, it closes them at once.
    """
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(_deliver(sock) for sock in socks))
    except TimeoutError:
        pass
    finally:
        for sock in socks:
            sock.close()


async def _deliver(sock: socket.socket) -> None:
    """Read on until the other end has taken what it was sent.

    Over a unix socket it has that: it can be read there, whatever becomes of this end.
    """
    if sock.family == socket.AF_UNIX or sock.fileno() < 0:
        return
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while unsent(sock):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    if not await loop.sock_recv(sock, _DISCARDED_AT_A_TIME):
                        return
            await asyncio.sleep(0)
