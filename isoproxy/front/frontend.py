"""The front end as a whole: its listeners, its connections, and how it is stopped.

Theory of operation
    A client goes one straight way: `listener` accepts it, `admission` counts it, and a
    `connection` takes it through its phases.  All that they need is passed down to them
    (`services`); none of them knows the front end.

Invariants
    Draining stops the listeners first, waits for the flows, and then ends what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from isoproxy.front.admission import ConnectionTable
from isoproxy.front.listener import (
    ACCEPT_BATCH,
    SHARED_BATCH,
    Listener,
    ListenerContext,
    ListenerSettings,
)
from isoproxy.front.pipes import PipePool
from isoproxy.front.services import (
    Bitcoin,
    FrontServices,
    FrontSettings,
    Limits,
    Names,
)
from isoproxy.front.statistics import destinations_without_credentials
from isoproxy.front.transparent import Program, TransparentListener
from isoproxy.isolation import Isolator
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.reactor import Reactor
from isoproxy.tls.termination import Terminator
from isoproxy.tor.dialer import Dialer
from isoproxy.transparent.virtual_addresses import ClientMaps


class FrontEnd:
    """All listeners of a process.

    names          resolves the names that Tor must not see, or None
    bitcoin        carries streams to Bitcoin peers, or None
    https          answers TLS for names under bit, or None
    processes      how many share the listening sockets
    """

    def __init__(
        self,
        reactor: Reactor,
        isolator: Isolator,
        dialer: Dialer,
        *,
        limits: Limits | None = None,
        names: Names | None = None,
        bitcoin: Bitcoin | None = None,
        https: Terminator | None = None,
        processes: int = 1,
    ) -> None:
        self.settings = FrontSettings(limits if limits is not None else Limits(), names)
        self.services = FrontServices(
            reactor,
            isolator,
            dialer,
            Deadlines(reactor.loop),
            PipePool.for_this_machine(processes),
            bitcoin,
            self.settings,
            https=https,
        )
        self.loop = reactor.loop
        self.reactor = reactor
        self.isolator = isolator
        self.dialer = dialer
        self.counters = self.services.counters
        self.accepted = self.services.accepted
        self.connections = ConnectionTable(self.settings)
        self.listeners: dict[str, Listener] = {}
        self._batch = ACCEPT_BATCH if processes == 1 else SHARED_BATCH

    def open(self, settings: ListenerSettings, sock: socket.socket | None = None) -> Listener:
        """Start a listener, on an inherited socket if there is one; OperationError if not."""
        listener = Listener(self.services, self.connections, settings, sock, batch=self._batch)
        self.listeners[settings.name] = listener
        return listener

    def transparent(
        self,
        settings: ListenerSettings,
        sock: socket.socket,
        maps: ClientMaps,
        program: Program | None,
    ) -> TransparentListener:
        """Accept on `sock` what is redirected there; the caller closes it."""
        services, connections = self.services, self.connections
        return TransparentListener(
            services, connections, settings, sock, maps, program, batch=self._batch
        )

    def context(self, settings: ListenerSettings, *, unix: bool) -> ListenerContext:
        """A way in for clients that somebody else accepts."""
        return ListenerContext(self.services, self.connections, settings, unix=unix)

    def close(self, name: str) -> None:
        """Stop one listener; its connections stay."""
        self.listeners.pop(name).close()

    def stop_listening(self) -> None:
        """Close all listeners; connections stay."""
        for name in list(self.listeners):
            self.close(name)

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, give open connections `timeout_s`, then end them."""
        self.stop_listening()
        await self.emptied(timeout_s)
        for connection in self.connections:
            connection.abort()
        await asyncio.gather(*self.services.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # gather does not wait for their callbacks, from Python 3.12 on
        self.services.deadlines.close()
        self.services.pipes.close()

    async def emptied(self, timeout_s: float) -> None:
        """Wait until no connection is open, `timeout_s` at most."""
        if timeout_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.connections.emptied()

    def destinations_without_credentials(self) -> int:
        """To how many hosts one identity without credentials is connected, at most."""
        requests = (connection.request for connection in self.connections)
        return destinations_without_credentials(filter(None, requests))

    def internal_error(self, handler: object, error: BaseException) -> None:
        """An exception escaped: end what it belongs to, and only that."""
        self.services.internal_error(handler, error)
