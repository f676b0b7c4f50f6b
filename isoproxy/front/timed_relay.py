"""A relay with its clocks: the idle timeout, and the half-close timeout after Tor's end.

`TimedRelay` is what the front end runs once a stream is open; `relay_stream` is the same
for callers that await, such as the Bitcoin side for a stream that it does not translate.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

from isoproxy.bitcoin.flow import ClosedBy
from isoproxy.front.direction import Direction
from isoproxy.front.half_close import HalfCloseTimeout
from isoproxy.front.relay import Relay
from isoproxy.front.services import FrontServices

COUNT_S: Final = 1.0
"""Seconds between two updates of the counts of `relay_stream`."""


class ByteCounts(Protocol):
    """Bytes that were moved from the client (up) and to it (down)."""

    bytes_up: int
    bytes_down: int


class TimedRelay:
    """Runs a relay until its end, or until nothing has moved for the idle timeout.

    `finished` is called once, when both sockets are closed.
    """

    __slots__ = ("_finished", "_half_close", "_services", "closed_by", "relay")

    def __init__(
        self,
        services: FrontServices,
        up: Direction,
        down: Direction,
        finished: Callable[[], None],
    ) -> None:
        self._services = services
        self._finished: Callable[[], None] | None = finished
        self._half_close: HalfCloseTimeout | None = None
        self.closed_by: ClosedBy | None = None
        """Whose end came first, once that is known; the client's where nobody else's did."""
        self.relay = Relay(services.reactor, services.pipes, up, down, self._ended, self._left)
        self._wait()

    def on_deadline(self) -> None:
        if self.relay.active:
            self.relay.active = False
            self._wait()
        else:
            self.closed_by = self.closed_by or ClosedBy.US
            self.relay.abort()

    def detach(self) -> None:
        """Let go of both sockets, which stay open and registered; `finished` is not called."""
        self.relay.detach()
        self._services.deadlines.clear(self)
        if self._half_close is not None:
            self._half_close.close()
            self._half_close = None

    def _wait(self) -> None:
        self._services.deadlines.set(self, self._services.settings.limits.idle_timeout_s)

    def _left(self) -> None:
        self.closed_by = ClosedBy.PEER
        self._half_close = HalfCloseTimeout(self._services.deadlines, self.relay)

    def _ended(self) -> None:
        self._services.deadlines.clear(self)
        if self._half_close is not None:
            self._half_close.close()
            self._half_close = None
        finished, self._finished = self._finished, None  # kept, it would keep its owner: a cycle
        if finished is not None:
            finished()


class _LiveCounts:
    """Brings counts up to date with a relay, once every COUNT_S."""

    __slots__ = ("_before", "_counts", "_relay", "_services")

    def __init__(self, services: FrontServices, relay: Relay, counts: ByteCounts) -> None:
        self._services = services
        self._relay = relay
        self._counts = counts
        self._before = counts.bytes_up, counts.bytes_down
        self.on_deadline()

    def on_deadline(self) -> None:
        self._update()
        self._services.deadlines.set(self, COUNT_S)

    def close(self) -> None:
        self._update()
        self._services.deadlines.clear(self)

    def _update(self) -> None:
        up, down = self._before
        self._counts.bytes_up = up + self._relay.bytes_up
        self._counts.bytes_down = down + self._relay.bytes_down


async def relay_stream(
    services: FrontServices,
    client: socket.socket,
    peer: socket.socket,
    first: bytes,
    counts: ByteCounts,
) -> ClosedBy:
    """Relay between two connected, non-blocking sockets until both have ended.

    `first` was read from the client already and goes to the peer before anything else.
    What is moved is added to `counts`, once a second and at the end.  Closes both sockets;
    cancelled, it resets both connections.  Returns whose end came first.
    """
    ended = asyncio.Event()
    stream = TimedRelay(
        services,
        Direction(client, peer, first),
        Direction(peer, client),
        ended.set,
    )
    live = _LiveCounts(services, stream.relay, counts)
    try:
        for sock in (client, peer):
            services.reactor.register(sock.fileno(), stream.relay)
        stream.relay.run()
        await ended.wait()
        return stream.closed_by or ClosedBy.CLIENT
    finally:
        stream.relay.abort()
        live.close()
