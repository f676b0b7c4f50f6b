"""Whole messages, and sockets with them, between the main process and a worker.

Theory of operation
    One end of a unix SOCK_SEQPACKET pair: a message is one packet, and sockets travel
    with it (SCM_RIGHTS).  What the other side does not take at once waits in a queue.

Invariants
    `on_end` is called exactly once: when the other process is gone, when it sends what is
    no message, or when it does not read what it is sent.  A socket that was given away is
    closed here, whether or not it arrived.
"""

from __future__ import annotations

import array
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from isoproxy.net.reactor import Reactor

MAX_MESSAGE: Final = 1 << 17
"""Bytes; a packet must fit the smallest usual send buffer."""
MAX_QUEUED: Final = 4096
MAX_SOCKETS: Final = 128
_TRUNCATED: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC

OnMessage = Callable[[bytes, list[socket.socket]], None]


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends, not inheritable."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end, on a reactor; `on_message` owns the sockets it is given.

    A message for whose sockets this process has no descriptors is lost, which `on_loss` is
    told; without it that is the end.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_message: OnMessage,
        on_end: Callable[[], None],
        on_loss: Callable[[], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._on_message = on_message
        self._on_loss = on_loss
        self._on_end: Callable[[], None] | None = on_end
        self._queue: deque[tuple[bytes, Sequence[socket.socket], bool]] = deque()
        sock.setblocking(False)
        reactor.register(sock.fileno(), self)

    @property
    def backlog(self) -> int:
        """How many messages the other side has not taken yet."""
        return len(self._queue)

    def send(
        self, message: bytes, sockets: Sequence[socket.socket] = (), *, give: bool = False
    ) -> None:
        """Send soon; with `give` the sockets are closed here afterwards."""
        if self._on_end is None or len(message) > MAX_MESSAGE or len(self._queue) >= MAX_QUEUED:
            if give:
                _close(sockets)
            self.close()
            return
        self._queue.append((message, sockets, give))
        self._flush()

    def on_events(self, fd: int, events: int) -> None:
        self._flush()
        while self._on_end is not None:
            try:
                data, extra, flags, _ = self._sock.recvmsg(
                    MAX_MESSAGE + 1,
                    socket.CMSG_SPACE(MAX_SOCKETS * 4),
                    socket.MSG_CMSG_CLOEXEC,
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            sockets = _received(extra)
            if data and not flags & _TRUNCATED:
                self._on_message(data, sockets)
                continue
            _close(sockets)
            if not data or flags & socket.MSG_TRUNC or self._on_loss is None:
                self.close()
                return
            self._on_loss()

    def close(self) -> None:
        """End; a second call does nothing."""
        ended, self._on_end = self._on_end, None
        if ended is None:
            return
        self._reactor.forget(self._sock.fileno())
        self._sock.close()
        while self._queue:
            _, sockets, give = self._queue.popleft()
            if give:
                _close(sockets)
        ended()

    def _flush(self) -> None:
        while self._queue and self._on_end is not None:
            message, sockets, give = self._queue[0]
            numbers = array.array("i", [sock.fileno() for sock in sockets])
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if sockets else []
            try:
                self._sock.sendmsg([message], extra)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self._queue.popleft()
            if give:
                _close(sockets)


def _received(extra: Sequence[tuple[int, int, bytes]]) -> list[socket.socket]:
    numbers = array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return [socket.socket(fileno=number) for number in numbers]


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.close()
