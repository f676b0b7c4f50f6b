"""One attempt to open a stream through Tor's SocksPort, on reactor callbacks.

Theory of operation
    A dial waits for its slot, connects, and feeds the SOCKS5 client codec until Tor has
    answered.  It has no task of its own: the reactor calls it when its socket changes,
    the circuit budget when its turn has come, and the deadlines when its time is up.

Invariants
    `done` is called exactly once, or never after `cancel`.  The slot is given back and
    the socket closed at the end, unless the socket was taken.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Hashable
from typing import Final

from isoproxy.errors import DialError, ErrorKind, IsoproxyError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.net.reactor import BROKEN, PEER_SHUT, READABLE, Reactor
from isoproxy.socks import Client, Reply
from isoproxy.tor.circuits import Slot

READ_AHEAD: Final = 4096
BACKLOG_RETRY_S: Final = 0.05
"""Seconds before a SocksPort whose backlog was full is tried again."""
OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What says that this machine, not Tor, is at its limits."""


class Dial:
    """One attempt to open a stream or to resolve a name.

    `open_socket` connects to the SocksPort, or raises OSError; a key that is not current
    for `isolator` opens nothing.  `circuit` is what Tor knows the circuit by.  When it is
    over `over(dial)` is called, and then `done(dial)` once: `reply` is set and the connected
    socket can be taken with `take_socket`, or `error` says what went wrong.
    """

    __slots__ = (
        "_began",
        "_client",
        "_done",
        "_isolator",
        "_key",
        "_open_socket",
        "_over",
        "_reactor",
        "_read_ahead",
        "_slot",
        "_sock",
        "_unsent",
        "circuit",
        "ending",
        "error",
        "readable",
        "reply",
    )

    def __init__(
        self,
        reactor: Reactor,
        isolator: Isolator,
        key: IsolationKey,
        circuit: Hashable,
        client: Client,
        open_socket: Callable[[], socket.socket],
        over: Callable[[Dial], None],
        done: Callable[[Dial], None],
        *,
        read_ahead: bool,
    ) -> None:
        self._reactor = reactor
        self._isolator = isolator
        self._key = key
        self.circuit = circuit
        self._client = client
        self._open_socket = open_socket
        self._over = over
        self._done: Callable[[Dial], None] | None = done
        self._slot: Slot | None = None
        self._sock: socket.socket | None = None
        self._unsent = b""
        self._began = reactor.loop.time()
        self.reply: Reply | None = None
        self.error: IsoproxyError | None = None
        self._read_ahead = read_ahead
        self.readable = True
        """Whether the socket may hold bytes that no event will announce again."""
        self.ending = False
        """Whether the far end has announced its end."""

    @property
    def age_s(self) -> float:
        """Seconds since it began."""
        return self._reactor.loop.time() - self._began

    @property
    def leftover(self) -> bytes:
        """The far end's first bytes, read ahead."""
        return self._client.leftover

    def take_socket(self) -> socket.socket:
        """The connected socket, still registered with the reactor; now the caller's."""
        sock, self._sock = self._sock, None
        if sock is None:
            raise DialError(kind=ErrorKind.INTERNAL)
        return sock

    def abort(self) -> None:
        """End with an error of ours, unless it is over."""
        self.fail(ErrorKind.INTERNAL)

    def cancel(self) -> None:
        """Give up without a call of `done`; does nothing once it is over."""
        self._done = None
        self._finish()

    def fail(self, kind: ErrorKind) -> None:
        """End with an error of `kind`."""
        if self._done is not None:
            self.error = DialError(kind=kind)
            self._finish()

    def on_deadline(self) -> None:
        queued = self._slot is not None and self._slot.waiting
        self.fail(ErrorKind.CIRCUITS_PENDING if queued else ErrorKind.DIAL_TIMEOUT)

    def on_events(self, fd: int, events: int) -> None:
        sock = self._sock
        if sock is None or self._done is None:
            return
        try:
            if events & (PEER_SHUT | BROKEN):
                self.ending = True
            if self._unsent and not self._send(sock):
                return
            if events & (READABLE | PEER_SHUT | BROKEN):
                self._receive(sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.fail(ErrorKind.TOR_UNREACHABLE)
        except IsoproxyError as error:
            if self._done is None:
                raise  # a defect of those who were told
            self.fail(error.kind)

    def begin(self) -> None:
        """The slot is granted: connect.  Called by the dialer only."""
        if self._done is None:
            return
        if not self._isolator.is_current(self._key):
            self.fail(ErrorKind.STALE_KEY)
            return
        try:
            self._sock = self._open_socket()
        except BlockingIOError:
            self._reactor.loop.call_later(BACKLOG_RETRY_S, self.begin)
            return
        except OSError as error:
            scarce = error.errno in OUT_OF_RESOURCES
            self.fail(ErrorKind.BUSY if scarce else ErrorKind.TOR_UNREACHABLE)
            return
        self._unsent = self._client.data_to_send()
        self._reactor.register(self._sock.fileno(), self)
        # On this machine the connection usually stands already: save a turn of the loop.
        self.on_events(self._sock.fileno(), 0)

    def want_slot(self, slot: Slot | None) -> None:
        """Remember the slot to give back; None means that the queue is full."""
        if slot is None:
            self.fail(ErrorKind.CIRCUITS_PENDING)
        elif self._done is None:
            slot.release()
        else:
            self._slot = slot

    def _send(self, sock: socket.socket) -> bool:
        """Send what waits; False when some of it waits for the next event."""
        try:
            sent = sock.send(self._unsent)
        except BlockingIOError:
            sent = 0  # not connected yet
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._reactor.watch_writable(sock.fileno())
        return not self._unsent

    def _receive(self, sock: socket.socket) -> None:
        while True:
            data = sock.recv(READ_AHEAD if self._read_ahead else self._client.wanted)
            if not data:
                self.fail(ErrorKind.TOR_UNREACHABLE)
                return
            reply = self._client.receive(data)
            self._unsent += self._client.data_to_send()
            if self._unsent and not self._isolator.is_current(self._key):
                self.fail(ErrorKind.STALE_KEY)  # Tor was slow to ask for credentials
                return
            # A short read has emptied the socket, unless its end is there already.
            emptied = self._read_ahead and len(data) < READ_AHEAD and not self.ending
            if reply is not None:
                self.reply = reply
                self.readable = not emptied
                self._finish()
                return
            if (self._unsent and not self._send(sock)) or emptied:
                return

    def _finish(self) -> None:
        self._over(self)
        if self._slot is not None:
            self._slot.release()
            self._slot = None
        done, self._done = self._done, None
        try:
            if done is not None:
                done(self)
        finally:
            if self._sock is not None:
                self._reactor.forget(self._sock.fileno())
                self._sock.close()
                self._sock = None
