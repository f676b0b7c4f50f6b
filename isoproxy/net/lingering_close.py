"""The last words to a client, said so that they arrive.

Theory of operation
    A socket that is closed with unread bytes in it resets its connection, and a reset may
    destroy what was sent just before, on its way or in the client's own buffer.  So after
    the last words the sending side is shut, and what the client still sends is read and
    thrown away until it ends, for a moment at most.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from isoproxy.net.reactor import Deadlines, Reactor

LINGER_S: Final = 10.0
"""Seconds a client is given to read what it was told."""
MAX_DISCARDED: Final = 1 << 18
_CHUNK: Final = 1 << 14


class LingeringClose:
    """Takes over a registered socket, says `words` and closes it; then calls `ended` once."""

    __slots__ = ("_deadlines", "_discarded", "_ended", "_reactor", "_sock")

    def __init__(
        self,
        reactor: Reactor,
        deadlines: Deadlines,
        sock: socket.socket,
        words: bytes,
        ended: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._sock = sock
        self._discarded = 0
        self._ended: Callable[[], None] | None = ended
        reactor.set_handler(sock.fileno(), self)
        deadlines.set(self, LINGER_S)
        try:
            if words:
                sock.send(words)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
        else:
            self._discard()

    def on_events(self, fd: int, events: int) -> None:
        self._discard()

    def on_deadline(self) -> None:
        self.close()

    def close(self) -> None:
        """Close now; a second call does nothing."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._deadlines.clear(self)
            self._reactor.forget(self._sock.fileno())
            self._sock.close()
            ended()

    def _discard(self) -> None:
        if self._ended is None:
            return
        try:
            while data := self._sock.recv(_CHUNK):
                self._discarded += len(data)
                if self._discarded > MAX_DISCARDED:
                    break
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self.close()
