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


class TimedRelay(Relay):
    """Runs a relay until its end, or until nothing has moved for the idle timeout."""

    __slots__ = ("_half_close", "_services", "closed_by")

    def __init__(
        self,
        services: FrontServices,
        up: Direction,
        down: Direction,
        finished: Callable[[], None],
    ) -> None:
        super().__init__(services.reactor, services.pipes, up, down, finished)
        self._services = services
        self._half_close: HalfCloseTimeout | None = None
        self.closed_by: ClosedBy | None = None
        """Whose end came first, once that is known; the client's where nobody else's did."""
        self._wait()

    def on_deadline(self) -> None:
        if self.active:
            self.active = False
            self._wait()
        else:
            self.closed_by = self.closed_by or ClosedBy.US
            self.abort()

    def on_half_close(self) -> None:
        self.closed_by = ClosedBy.PEER
        self._half_close = HalfCloseTimeout(self._services.deadlines, self)

    def detach(self) -> None:
        super().detach()
        self._stop_waiting()

    def _close(self) -> None:
        self._stop_waiting()
        super()._close()

    def _wait(self) -> None:
        self._services.deadlines.set(self, self._services.settings.limits.idle_timeout_s)

    def _stop_waiting(self) -> None:
        self._services.deadlines.clear(self)
        if self._half_close is not None:
            self._half_close.close()
            self._half_close = None


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
    relay = TimedRelay(
        services,
        Direction(client, peer, first),
        Direction(peer, client),
        ended.set,
    )
    live = _LiveCounts(services, relay, counts)
    try:
        for sock in (client, peer):
            services.reactor.register(sock.fileno(), relay)
        relay.run()
        await ended.wait()
        return relay.closed_by or ClosedBy.CLIENT
    finally:
        relay.abort()
        live.close()
