"""A client's socket and Tor's, joined, until both have ended.

Theory of operation
    A relay is two directions over two non-blocking sockets; it runs on reactor events,
    without a task.

Invariants
    * Half-close is exact: the end of one direction is forwarded when all its bytes are; the
      relay ends when both directions did.
    * A broken connection is never passed on as an orderly end: the other side is reset.
    * Where Tor takes no more, what the client still says is read and thrown away until it
      ends: a socket that is closed with unread bytes in it resets its connection, and that
      destroys what the client has yet to read.
    * `finished` is called exactly once, after both sockets are closed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from isoproxy.front.direction import Direction
from isoproxy.front.pipes import PipePool
from isoproxy.net.reactor import BROKEN, PEER_SHUT, READABLE, WRITABLE, Reactor, unsent

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Relay:
    """A client's socket and Tor's, joined.

    `up` carries the client's bytes, `down` Tor's.  `finished` is called once, when both
    sockets are closed.  Both sockets must be registered with the reactor; the relay takes
    them over, and moves nothing before the first event or `run`.
    """

    __slots__ = (
        "_finished",
        "_half_closed",
        "_pipes",
        "_queued",
        "_reactor",
        "_up_fd",
        "active",
        "broken",
        "down",
        "up",
    )

    def __init__(
        self,
        reactor: Reactor,
        pipes: PipePool,
        up: Direction,
        down: Direction,
        finished: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._pipes = pipes
        self._finished: Callable[[], None] | None = finished
        self._half_closed = False
        self.broken = False
        """Tor's end was none in order; the client is told so when it has all."""
        up.drain_source = True
        self._queued = False
        self.active = True
        """Set whenever something happened; whoever watches for idleness clears it."""
        self.up = up
        self.down = down
        self._up_fd = up.source.fileno()
        reactor.set_handler(self._up_fd, self)
        reactor.set_handler(down.source.fileno(), self)

    @property
    def bytes_up(self) -> int:
        return self.up.moved

    @property
    def bytes_down(self) -> int:
        return self.down.moved

    def on_half_close(self) -> None:
        """Tor has ended, the client has been handed all, and has not ended itself."""

    def on_events(self, fd: int, events: int) -> None:
        if self._finished is None:
            return
        self.active = True
        own, other = (self.up, self.down) if fd == self._up_fd else (self.down, self.up)
        if events == READABLE and own.at_rest:
            try:
                if own.copy_once():
                    return
            except OSError:
                self._source_broke(own)
                return
        if events & (READABLE | PEER_SHUT | BROKEN):
            own.readable = True
            if events & (PEER_SHUT | BROKEN):
                own.ending = True
        if events & (WRITABLE | BROKEN):
            other.writable = True
        if not events:
            self._queued = False
        self.run()

    def run(self) -> None:
        """Move what can be moved in both directions."""
        up, down = self.up, self.down
        direction = up
        try:
            more = not up.ended and up.forward(self._pipes, down.ended)
            direction = down
            if not down.ended and down.forward(self._pipes, up.ended or up.reset):
                more = True
        except OSError:
            self._source_broke(direction)
            return
        if down.ended:
            if not self._goes_on():
                return
            more = more or (up.discarding and up.readable)
        if not (up.writable and down.writable):
            self._watch_writable()
        if more and not self._queued:
            self._queued = True
            self._reactor.reschedule(self, self._up_fd)

    def _watch_writable(self) -> None:
        for direction in (self.up, self.down):
            if not direction.writable and not direction.watched:
                direction.watched = True
                self._reactor.watch_writable(direction.sink.fileno())

    def _source_broke(self, direction: Direction) -> None:
        """Pass a break on: Tor's when the client has all that came before it."""
        if direction is self.up:
            self.abort()
            return
        self.down.release(self._pipes)
        self.down.ended = self.broken = True
        self.run()

    def _goes_on(self) -> bool:
        """Tor has ended: whether the client is waited for."""
        up = self.up
        if up.reset or self.broken:
            self.broken = up.discarding = up.ending = up.writable = True
            up.release(self._pipes)
        if (not self.unread()) if self.broken else up.ended:
            self.finish()
            return False
        if not self._half_closed:
            self._half_closed = True
            self.on_half_close()
        return True

    def unread(self) -> int:
        """Bytes on their way to the client that it has not taken yet."""
        return unsent(self.down.sink)

    def finish(self) -> None:
        """End at once, as if both sides had ended: what is on its way arrives."""
        if self.broken:
            self.abort()
        elif self._finished is not None:
            self._close()

    def abort(self) -> None:
        """End at once and reset both connections, so that nobody takes it for an end."""
        if self._finished is not None:
            for sock in (self.up.source, self.up.sink):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._close()

    def detach(self) -> None:
        """Let go of both sockets, which stay open; `finished` is not called."""
        self._finished = None
        for direction in (self.up, self.down):
            direction.release(self._pipes)

    def _close(self) -> None:
        finished, self._finished = self._finished, None  # kept, it would keep its owner: a cycle
        for direction in (self.up, self.down):
            direction.release(self._pipes)
        for sock in (self.up.source, self.up.sink):
            self._reactor.forget(sock.fileno())
            sock.close()
        if finished is not None:
            finished()
