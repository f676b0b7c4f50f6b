"""The phase of a stream to one of Bitcoin's peers: the Bitcoin side carries it.

Theory of operation
    Both sockets leave the reactor and go to `Bitcoin.carry`, a coroutine.  What it does not
    translate it gives to the same relay that carries every other stream.

Invariants
    Both sockets are closed at the end, also of a task that never began.
"""

from __future__ import annotations

import asyncio
import socket

from isoproxy.bitcoin.flow import Flow
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.services import Bitcoin


class CarryingPhase(Phase):
    """Carries the stream `upstream` of `flow`; `early` is what the client has said."""

    __slots__ = ("_bitcoin", "_early", "_flow", "_task", "_upstream")

    def __init__(
        self,
        connection: Connection,
        bitcoin: Bitcoin,
        flow: Flow,
        upstream: socket.socket,
        early: bytes,
    ) -> None:
        super().__init__(connection)
        self._bitcoin = bitcoin
        self._flow = flow
        self._upstream = upstream
        self._early = early
        self._task: asyncio.Task[None] | None = None

    @property
    def bytes_up(self) -> int:
        return self._flow.bytes_up

    @property
    def bytes_down(self) -> int:
        return self._flow.bytes_down

    def begin(self) -> None:
        connection, services = self.connection, self.connection.services
        for sock in (connection.sock, self._upstream):
            services.reactor.unregister(sock.fileno())
        carrying = self._bitcoin.carry(
            connection.sock, self._early, self._upstream, self._flow, connection.client_id
        )
        self._task = services.spawn(connection, carrying)
        self._task.add_done_callback(self._carried)

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _carried(self, task: asyncio.Task[None]) -> None:
        connection = self.connection
        for sock in (connection.sock, self._upstream):
            sock.close()
        connection.statistics.relayed(self.bytes_up, self.bytes_down, self.bytes_spliced)
        connection.end()
