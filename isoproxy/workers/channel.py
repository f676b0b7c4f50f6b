"""Whole messages between the main process and a stream process, and sockets with them.

Theory of operation
    One end of a unix SOCK_SEQPACKET pair: a message is one packet, and sockets travel
    with it (SCM_RIGHTS, unix(7)).  What the other side does not take at once waits in a queue.
    After `BATCH` packets the others on the reactor have their turn.

Invariants
    `on_end` is called exactly once: when the other process is gone, when it sends what is
    not a message, or when it does not read what it is sent.  Sockets are received only by
    an end that takes them; to any other end they are not a message.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from isoproxy.net.reactor import Reactor

MAX_MESSAGE: Final = 1 << 17
"""Bytes; a packet must fit the smallest usual send buffer."""
MAX_QUEUED: Final = 4096
MAX_SOCKETS: Final = 128
BATCH: Final = 16
"""Packets that are read before others have their turn."""
_TRUNCATED: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC

OnMessage = Callable[[bytes, list[socket.socket]], None]


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends, not inheritable."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end, on a reactor; `on_message` owns the sockets it is given.

    With `takes_sockets` this end receives sockets.  `on_taken()` is called whenever the other
    side, which had not, has taken all.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_message: OnMessage,
        on_end: Callable[[], None],
        *,
        takes_sockets: bool = False,
        on_taken: Callable[[], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._on_message = on_message
        self._on_end: Callable[[], None] | None = on_end
        self._on_taken = on_taken
        self._room = socket.CMSG_SPACE(MAX_SOCKETS * 4) if takes_sockets else 0
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._waits_for_room = False
        self._empty = asyncio.Event()
        self._empty.set()
        sock.setblocking(False)
        reactor.register(sock.fileno(), self)

    @property
    def backlog(self) -> int:
        """How many messages the other side has not taken yet."""
        return len(self._queue)

    def send(self, message: bytes, sockets: Sequence[socket.socket] = ()) -> None:
        """Send soon; the sockets may be closed here at once."""
        if self._on_end is None:
            return
        if len(message) > MAX_MESSAGE or len(self._queue) >= MAX_QUEUED:
            self.close()
            return
        numbers: list[int] = []
        self._queue.append((message, numbers))
        try:
            numbers.extend(os.dup(sock.fileno()) for sock in sockets)
        except OSError:  # no descriptors are left
            self.close()
            return
        self._flush()

    async def taken(self) -> None:
        """Give others their turn, and wait until nothing waits to be taken; or for the end."""
        await asyncio.sleep(0)
        await self._empty.wait()

    def on_events(self, fd: int, events: int) -> None:
        self._flush()
        for _ in range(BATCH):
            if self._on_end is None:
                return
            try:
                data, extra, flags, _ = self._sock.recvmsg(
                    MAX_MESSAGE, self._room, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            sockets = _received(extra)
            if not data or flags & _TRUNCATED:
                for sock in sockets:
                    sock.close()
                self.close()
                return
            self._on_message(data, sockets)
        if self._on_end is not None:
            self._reactor.reschedule(self, fd)

    def close(self) -> None:
        """End; a second call does nothing."""
        ended, self._on_end = self._on_end, None
        if ended is None:
            return
        self._reactor.forget(self._sock.fileno())
        self._sock.close()
        while self._queue:
            _close(self._queue.popleft()[1])
        self._empty.set()
        ended()

    def _flush(self) -> None:
        while self._queue and self._on_end is not None:
            message, numbers = self._queue[0]
            rights = array.array("i", numbers)
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if numbers else []
            try:
                self._sock.sendmsg([message], extra)
            except (BlockingIOError, InterruptedError):
                self._empty.clear()
                if not self._waits_for_room:
                    self._waits_for_room = True
                    self._reactor.watch_writable(self._sock.fileno())
                return
            except OSError:
                self.close()
                return
            self._queue.popleft()
            _close(numbers)
        if not self._empty.is_set():
            self._empty.set()
            if self._on_taken is not None and self._on_end is not None:
                self._on_taken()


def _received(extra: Sequence[tuple[int, int, bytes]]) -> list[socket.socket]:
    numbers = array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return [socket.socket(fileno=number) for number in numbers]


def _close(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)
