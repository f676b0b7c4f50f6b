"""The phase of an open stream: bytes flow until both sides have ended."""

from __future__ import annotations

from isoproxy.front.connection import Connection, Phase
from isoproxy.front.direction import Direction
from isoproxy.front.timed_relay import TimedRelay


class RelayingPhase(Phase):
    """Relays `up` from the client to Tor, and `down` to it; both sockets are registered."""

    __slots__ = ("_timed",)

    def __init__(self, connection: Connection, up: Direction, down: Direction) -> None:
        super().__init__(connection)
        connection.services.deadlines.clear(connection)
        self._timed = TimedRelay(connection.services, up, down, self._ended)

    @property
    def bytes_up(self) -> int:
        return self._timed.relay.bytes_up

    @property
    def bytes_down(self) -> int:
        return self._timed.relay.bytes_down

    @property
    def bytes_spliced(self) -> tuple[int, int]:
        relay = self._timed.relay
        return relay.up.spliced, relay.down.spliced

    def begin(self) -> None:
        self._timed.relay.run()

    def abort(self) -> None:
        self._timed.relay.abort()

    def _ended(self) -> None:
        up, down = self._timed.relay.up, self._timed.relay.down
        spliced = up.spliced, down.spliced
        self.connection.statistics.relayed(up.moved, down.moved, spliced)
        self.connection.end()
