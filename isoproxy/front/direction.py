"""One way between two sockets: bytes from a source to a sink, until the source has ended.

Theory of operation
    A direction copies its first 256 KiB through one buffer that all share (small exchanges
    need no pipe), and then splices through a borrowed kernel pipe.  It stops when its
    source says EAGAIN, when its sink is full, or when it had its share of the turn; bytes
    that the sink did not take are kept (copy) or stay in the pipe (splice), and nothing
    more is read before they are gone: that is the back-pressure.

    `splice` says EAGAIN both for an empty socket and for a full pipe.  A pipe is always
    drained before it is filled again, so here it means the socket.

Invariants
    * The end is forwarded as a shutdown of the sink, and only when all bytes are.
    * At most one buffer or one pipe of bytes is held.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from isoproxy.front.pipes import Pipe, PipePool

COPY_LIMIT: Final = 1 << 18
"""Bytes of a direction that are copied before it begins to splice."""
SHARE: Final = 1 << 22
"""Bytes a direction may move in one turn before others have theirs."""

_BUFFER: Final = memoryview(bytearray(1 << 17))
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class _SinkBroken(Exception):
    """The sink takes no more, for good; `__cause__` says why."""


class Direction:
    """One way: from `source` to `sink`.  `moved` counts the bytes the sink has taken, and
    `spliced` those of them that never left the kernel.

    readable    the source may hold bytes that no event will announce again
    ending      the source may have announced its end: a short read proves nothing
    watched     the reactor reports when the sink takes bytes again
    drain_source     a sink that is broken does not end the direction: its source is read on
    discarding        the sink is broken, and what the source says goes nowhere
    reset       the sink said that its connection was reset, and will not say so again
    """

    __slots__ = (
        "discarding",
        "drain_source",
        "ended",
        "ending",
        "moved",
        "pending",
        "pipe",
        "readable",
        "reset",
        "sink",
        "source",
        "spliced",
        "watched",
        "writable",
    )

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        pending: bytes = b"",
        *,
        readable: bool = True,
        ending: bool = True,
    ) -> None:
        self.source = source
        self.sink = sink
        self.pending: bytes | memoryview = pending
        self.pipe: Pipe | None = None
        self.moved = 0
        self.spliced = 0
        self.readable = readable
        self.writable = True
        self.watched = False
        self.ending = ending
        self.ended = False
        self.drain_source = False
        self.discarding = False
        self.reset = False

    @property
    def idle(self) -> bool:
        """Nothing can be done before the next event."""
        if self.ended or not self.writable:
            return True
        return not (self.readable or self.pending or self.pipe is not None)

    @property
    def at_rest(self) -> bool:
        """Nothing is held, nothing is in the way, and what comes next is to be copied."""
        return (
            self.writable
            and not (self.readable or self.ending or self.ended or self.pending)
            and self.pipe is None
            and self.moved < COPY_LIMIT
        )

    def copy_once(self) -> bool:
        """Copy what came to a direction at rest; False when `forward` has to see to the rest.

        The short way, for a message that fits: what is done between its arrival and the
        next wait is what a round trip pays for.  A source that is broken raises OSError.
        """
        try:
            count = self.source.recv_into(_BUFFER)
        except BlockingIOError:
            return True
        self.readable = not 0 < count < len(_BUFFER)
        try:
            sent = self.sink.send(_BUFFER[:count]) if count else 0
        except OSError as error:
            sent = 0  # full or broken: `forward` finds out which
            self.reset = isinstance(error, ConnectionResetError)
        self.moved += sent
        self.pending = bytes(_BUFFER[sent:count])
        return not (self.readable or self.pending)

    def forward(self, pipes: PipePool, last: bool) -> bool:
        """Move bytes until something is in the way or the share is used up; True then.

        It has not ended.
        `last` says that the other direction has ended, or was reset: both sockets are
        about to be closed, which announces this end as well.  A sink that is broken ends the
        direction, unless it is `drain_source`: nobody is left to read.  A source that is broken
        raises OSError.
        """
        if self.discarding:
            return self._discard()
        share = SHARE
        try:
            while self.writable and not self.ended:
                if (self.pending or self.pipe is not None) and not self._flush(pipes):
                    return False
                if not self.readable:
                    return False
                if share <= 0:
                    return True
                share -= self._splice(pipes) if self.moved >= COPY_LIMIT else self._copy()
        except _SinkBroken as broken:
            self.release(pipes)
            self.reset = self.reset or isinstance(broken.__cause__, ConnectionResetError)
            if self.drain_source:
                self.discarding = self.readable = self.ending = self.writable = True
            else:
                self.ended = True
            return self.discarding
        if self.ended and not last:
            with contextlib.suppress(OSError):
                # The sink may be gone; its own direction finds that out.
                self.sink.shutdown(socket.SHUT_WR)
        return False

    def release(self, pipes: PipePool) -> None:
        """Give back what is borrowed."""
        if self.pipe is not None:
            pipes.give_back(self.pipe)
            self.pipe = None
        self.pending = b""

    def _discard(self) -> bool:
        """Read what nobody is left for; True when the share is used up."""
        share = SHARE
        try:
            while share > 0:
                count = self.source.recv_into(_BUFFER)
                if not count:
                    self.ended = True
                    return False
                share -= count
        except BlockingIOError:
            self.readable = False
            return False
        return True

    def _flush(self, pipes: PipePool) -> bool:
        """Hand the sink what is held; False when it takes no more."""
        try:
            if self.pending:
                sent = self.sink.send(self.pending)
                self.moved += sent
                self.pending = self.pending[sent:]
                if self.pending:
                    self.writable = False
                    return False
            return self.pipe is None or self._drain(self.pipe, pipes)
        except BlockingIOError:
            self.writable = False
            return False
        except OSError as error:
            raise _SinkBroken from error

    def _copy(self) -> int:
        try:
            count = self.source.recv_into(_BUFFER)
        except BlockingIOError:
            self.readable = self.ending = False
            return 0
        if not count:
            self.ended = True
            return 0
        sent = 0
        try:
            sent = self.sink.send(_BUFFER[:count])
        except BlockingIOError:
            self.writable = False
        except OSError as error:
            raise _SinkBroken from error
        self.moved += sent
        if sent < count:
            self.pending = bytes(_BUFFER[sent:count])
        if count < len(_BUFFER) and not self.ending:
            # The kernel gave less than was asked for: the socket is empty, and whatever
            # comes next is announced by an event.
            self.readable = False
        return count

    def _splice(self, pipes: PipePool) -> int:
        pipe = self.pipe = pipes.borrow()
        if pipe is None:
            return self._copy()
        try:
            count = os.splice(
                self.source.fileno(), pipe.write_fd, pipe.capacity, flags=_SPLICE_FLAGS
            )
        except BlockingIOError:
            self.readable = self.ending = False
            self.release(pipes)
            return 0
        if not count:
            self.release(pipes)
            self.ended = True
            return 0
        pipe.held = count
        try:
            self._drain(pipe, pipes)
        except BlockingIOError:
            self.writable = False
        return count

    def _drain(self, pipe: Pipe, pipes: PipePool) -> bool:
        """Move a pipe's bytes to the sink; True when it is empty and given back."""
        while pipe.held:
            try:
                sent = os.splice(pipe.read_fd, self.sink.fileno(), pipe.held, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                raise
            except OSError as error:
                raise _SinkBroken from error
            pipe.held -= sent
            self.moved += sent
            self.spliced += sent
        pipes.give_back(pipe)
        self.pipe = None
        return True
