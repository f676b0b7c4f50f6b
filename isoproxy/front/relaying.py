"""The phase of an open stream: bytes flow until both sides have ended."""

from __future__ import annotations

from isoproxy.front.connection import Connection, Phase
from isoproxy.front.direction import Direction
from isoproxy.front.timed_relay import TimedRelay


class RelayingPhase(Phase):
    """Relays `up` from the client to Tor, and `down` to it; both sockets are registered."""

    __slots__ = ("_relay",)

    def __init__(self, connection: Connection, up: Direction, down: Direction) -> None:
        super().__init__(connection)
        self._relay = TimedRelay(connection.services, up, down, self._ended)

    @property
    def bytes_up(self) -> int:
        return self._relay.bytes_up

    @property
    def bytes_down(self) -> int:
        return self._relay.bytes_down

    @property
    def bytes_spliced(self) -> tuple[int, int]:
        return self._relay.up.spliced, self._relay.down.spliced

    def begin(self) -> None:
        self._relay.run()

    def abort(self) -> None:
        self._relay.abort()

    def _ended(self) -> None:
        up, down = self._relay.up, self._relay.down
        spliced = up.spliced, down.spliced
        self.connection.statistics.relayed(up.moved, down.moved, spliced)
        self.connection.end()
