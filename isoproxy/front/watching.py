"""The phase of a stream that may yet turn out to be Bitcoin's, on a port that is not listed.

Theory of operation
    The stream was dialled for the application.  What the peer says passes at once, so that a
    protocol in which the server speaks first waits for nothing; of what the client says the
    first bytes are read here, in place of the relay.  They are no v1 nearly always: the relay
    sends them, as if it had read them itself.  What is no more than the beginning of a magic
    is held for a moment, in case the client sends no more before it is answered.

    v1 of a known network must not ride on the application's circuits, nor leave in plaintext:
    this stream is closed with nothing sent, and another one dialled with the purpose of
    Bitcoin's.  If the peer has spoken by then, the client is ended.

Invariants
    No byte of the client's leaves before it is told from v1, but for less than a magic that
    was held long enough; no message of v1 leaves here.
"""

from __future__ import annotations

import asyncio
from typing import Final

from isoproxy.bitcoin.flow import Flow
from isoproxy.errors import ErrorKind, IsoproxyError
from isoproxy.front.carrying import CarryingPhase
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.direction import Direction
from isoproxy.front.relaying import RelayingPhase
from isoproxy.front.services import Bitcoin
from isoproxy.front.states import Event
from isoproxy.isolation import P2P
from isoproxy.net.reactor import BROKEN, PEER_SHUT, READABLE, WRITABLE
from isoproxy.net.target import Target
from isoproxy.tor.dial import Dial

HOLD_S: Final = 0.2
"""Seconds for which the first bytes of what may yet become v1 are held; v1 clients send a
magic whole."""
READ_SIZE: Final = 1 << 14
"""Bytes of a client's that are read at once."""

_BUFFER: Final = memoryview(bytearray(READ_SIZE))


class WatchingPhase(RelayingPhase):
    """Relays to `peer`, but watches the client's first bytes; `early` are those that were read."""

    __slots__ = ("_bitcoin", "_early", "_peer", "_sent", "_timer")

    def __init__(
        self,
        connection: Connection,
        bitcoin: Bitcoin,
        peer: Target,
        early: bytes,
        up: Direction,
        down: Direction,
    ) -> None:
        super().__init__(connection, up, down)
        self._bitcoin = bitcoin
        self._peer = peer
        self._early = early
        self._sent = b""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        connection, up = self.connection, self._relay.up
        connection.services.reactor.set_handler(connection.sock.fileno(), connection)
        arrived = READABLE * up.readable | PEER_SHUT * up.ending
        up.readable = up.ending = False
        super().begin()
        if connection.phase is self:
            self._hold()
            if arrived:
                self.on_events(arrived)

    def on_events(self, events: int) -> None:
        found = self._look(events) if events & (READABLE | PEER_SHUT | BROKEN) else None
        if found is False:
            self._begin_relay(events)
        elif found:
            self._carry()
        elif events & WRITABLE:
            self._relay.on_events(self.connection.sock.fileno(), WRITABLE)

    def _ended(self) -> None:
        self._stop_timer()
        super()._ended()

    def _look(self, events: int) -> bool | None:
        """Whether the client speaks v1; None while that is open and the client goes on."""
        while True:
            try:
                count = self.connection.sock.recv_into(_BUFFER)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return False
            self._early += bytes(_BUFFER[:count])
            self._relay.up.readable = not 0 < count < READ_SIZE
            found = self._bitcoin.is_v1(self._sent + self._early) if count else False
            if found is not None:
                return found
            self._hold()
            if not events & (PEER_SHUT | BROKEN):
                return None

    def _hold(self) -> None:
        """See that what may yet become v1 is not held for long."""
        if self._early and self._timer is None:
            loop = self.connection.services.reactor.loop
            self._timer = loop.call_later(HOLD_S, self._held_long_enough)

    def _held_long_enough(self) -> None:
        """Let go of bytes that are no message yet; should they become v1, no other follows."""
        self._timer = None
        self._sent += self._early
        self._relay.up.pending, self._early = self._early, b""
        self._relay.run()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_relay(self, events: int) -> None:
        """The relay has the client from now on."""
        self._stop_timer()
        relay, fd = self._relay, self.connection.sock.fileno()
        up = relay.up
        up.pending, self._early = bytes(up.pending) + self._early, b""
        self.connection.services.reactor.set_handler(fd, relay)
        if events == READABLE and not up.readable:
            relay.active = True
            relay.run()
        else:
            relay.on_events(fd, events | READABLE)

    def _carry(self) -> None:
        self._stop_timer()
        connection, relay, request = self.connection, self._relay, self.connection.request
        assert request is not None
        flow = Flow(request.key, self._peer)
        if self._sent or relay.down.moved or relay.down.pending or relay.down.pipe is not None:
            self._bitcoin.refuse(flow)
            self.abort()
            return
        relay.detach()
        upstream = relay.up.sink
        connection.services.reactor.forget(upstream.fileno())
        upstream.close()
        connection.purpose = P2P
        phase = RedialPhase(connection, self._bitcoin, flow, self._early)
        connection.enter(Event.FOR_BITCOIN, phase)


class RedialPhase(Phase):
    """Dials the peer of `flow` for a client that was answered already, and waits."""

    __slots__ = ("_bitcoin", "_dial", "_early", "_flow")

    def __init__(self, connection: Connection, bitcoin: Bitcoin, flow: Flow, early: bytes) -> None:
        super().__init__(connection)
        self._bitcoin = bitcoin
        self._flow = flow
        self._early = early
        self._dial: Dial | None = None

    def begin(self) -> None:
        connection, request = self.connection, self.connection.request
        assert request is not None
        try:
            dial = connection.services.dialer.start(
                request.key, P2P, self._flow.peer, self._dialled, client=connection.client_id
            )
        except IsoproxyError as error:
            self._fail(error.kind)
            return
        if connection.phase is self:
            self._dial = dial

    def on_events(self, events: int) -> None:
        if events & BROKEN:
            self.abort()

    def abort(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self.connection.hang_up()

    def _fail(self, kind: ErrorKind) -> None:
        self._bitcoin.refuse(self._flow, kind)
        self.connection.hang_up()

    def _dialled(self, dial: Dial) -> None:
        self._dial = None
        connection = self.connection
        connection.statistics.dialled(dial.age_s)
        if dial.error is not None or dial.reply is None:
            self._fail(dial.error.kind if dial.error is not None else ErrorKind.INTERNAL)
            return
        upstream = dial.take_socket()
        phase = CarryingPhase(connection, self._bitcoin, self._flow, upstream, self._early)
        connection.enter(Event.OPENED, phase)
