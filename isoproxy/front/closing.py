"""The last phase of a client that gets no stream: it is told the answer, or why not."""

from __future__ import annotations

from isoproxy.front.connection import Connection, Phase
from isoproxy.net.lingering_close import LingeringClose


class ClosingPhase(Phase):
    """Says `reply`, in the client's own protocol, and closes so that it arrives."""

    __slots__ = ("_closing", "_reply")

    def __init__(self, connection: Connection, reply: bytes) -> None:
        super().__init__(connection)
        self._reply = reply
        self._closing: LingeringClose | None = None

    def begin(self) -> None:
        connection, services = self.connection, self.connection.services
        self._closing = LingeringClose(
            services.reactor, services.deadlines, connection.sock, self._reply, connection.end
        )

    def abort(self) -> None:
        if self._closing is not None:
            self._closing.abort()
