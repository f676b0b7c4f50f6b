"""The phases of a stream that is answered with TLS: its site is dialled, then both are joined.

Theory of operation
    `SiteOpeningPhase` stands in place of `OpeningPhase` for a listener with `tls` and the
    HTTPS server of a name under bit.  What the client says early is kept for its handshake,
    and never sent on.  Then both sockets leave the reactor and go to `Terminator.carry`, a
    coroutine, which carries the stream to its end.

Invariants
    Both sockets are closed at the end, also of a task that never began.
"""

from __future__ import annotations

import asyncio

from isoproxy.errors import ErrorKind, IsoproxyError
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.opening import OpeningPhase
from isoproxy.front.states import Event
from isoproxy.tls.termination import SiteFlow, Terminator


class SiteOpeningPhase(OpeningPhase):
    """Opens the stream to a site, as far as one may be opened."""

    __slots__ = ()

    def begin(self) -> None:
        connection = self.connection
        connection.request = self._request
        if (https := connection.services.https) is None or https.issuer is None:
            self._refuse(ErrorKind.NOT_ALLOWED)  # a reload took it away
            return
        self._task = connection.services.spawn(connection, self._open(https))

    async def _open(self, https: Terminator) -> None:
        connection, request = self.connection, self._request
        loop = connection.services.loop
        began = loop.time()
        try:
            flow = await https.open(
                request.target, request.key, connection.client_id, connection.statistics.listener
            )
        except IsoproxyError as error:
            self._refuse(error.kind)
            return
        connection.statistics.dialled(loop.time() - began)
        if not connection.send(self._handshake.succeed()):
            if flow.upstream is not None:
                flow.upstream.close()
            self.abort()
            return
        connection.statistics.opened()
        connection.enter(Event.OPENED, SecuringPhase(connection, https, flow, self._early))


class SecuringPhase(Phase):
    """Carries `flow` with TLS; `early` is what the client has said."""

    __slots__ = ("_early", "_flow", "_https", "_task")

    def __init__(
        self, connection: Connection, https: Terminator, flow: SiteFlow, early: bytes
    ) -> None:
        super().__init__(connection)
        self._https = https
        self._flow = flow
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
        services.reactor.unregister(connection.sock.fileno())
        limits = services.settings.limits
        carrying = self._https.carry(
            connection.sock,
            self._early,
            self._flow,
            handshake_s=limits.handshake_timeout_s,
            idle_s=limits.idle_timeout_s,
        )
        self._task = services.spawn(connection, carrying)
        self._task.add_done_callback(self._carried)

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _carried(self, task: asyncio.Task[None]) -> None:
        connection, flow = self.connection, self._flow
        for sock in (connection.sock, flow.upstream):
            if sock is not None:
                sock.close()
        connection.statistics.secured(flow.outcome)
        connection.statistics.relayed(flow.bytes_up, flow.bytes_down, self.bytes_spliced)
        connection.end()
