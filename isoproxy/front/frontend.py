"""The front end as a whole: listeners, connections, budgets, and how it is stopped.

Invariants
    The number of connections is bounded in total and per client.  Draining stops the
    listeners first, waits for the flows, and then ends what is left.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol

from isoproxy.front.connection import Connection
from isoproxy.front.listener import Listener, ListenerSettings
from isoproxy.front.pipes import PipePool
from isoproxy.front.services import Bitcoin, FrontServices, FrontSettings, Limits, Names
from isoproxy.front.session import ProxyRequest
from isoproxy.front.statistics import FlowView
from isoproxy.isolation import Isolator
from isoproxy.net.reactor import Deadlines, Reactor
from isoproxy.observe.log import Sensitive, logger
from isoproxy.tor.dialer import Dialer

_log: Final = logger("front")


class MainProcess(Protocol):
    """Where a worker hands over what it does not carry itself."""

    def takes(self, request: ProxyRequest) -> bool:
        """Whether a request is for the main process."""
        ...

    def take(self, listener: ListenerSettings, heard: bytes, client: socket.socket) -> None:
        """Take a client of `listener` over, and its socket; `heard` is all that it has said.

        It has been answered all but its request.
        """
        ...


class FrontEnd:
    """All listeners of a process.

    names          resolves the names that Tor must not see, or None
    bitcoin        carries streams to Bitcoin peers, or None
    main           in a worker, takes what the worker does not carry
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
        main: MainProcess | None = None,
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
        )
        self.reactor = reactor
        self.loop = reactor.loop
        self.isolator = isolator
        self.dialer = dialer
        self.main = main
        self.processes = processes
        self.counters = self.services.counters
        self.connections: set[Connection] = set()
        self.listeners: dict[str, Listener] = {}
        self.accepted: Counter[str] = Counter()
        self._per_client: Counter[bytes] = Counter()
        self._drained: asyncio.Event | None = None

    def open(self, settings: ListenerSettings, sock: socket.socket | None = None) -> Listener:
        """Start a listener, on an inherited socket if there is one; OperationError if not."""
        listener = Listener(self, settings, sock)
        self.listeners[settings.name] = listener
        return listener

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
        if self.connections and timeout_s > 0:
            self._drained = asyncio.Event()
            try:
                await asyncio.wait_for(self._drained.wait(), timeout_s)
            except TimeoutError:
                pass
            finally:
                self._drained = None
        for connection in list(self.connections):
            connection.abort()
        await asyncio.gather(*self.services.tasks, return_exceptions=True)
        self.services.deadlines.close()
        self.services.pipes.close()

    def flows(self) -> Iterable[FlowView]:
        """A view of every connection."""
        now = self.loop.time()
        for connection in list(self.connections):
            request = connection.request
            yield FlowView(
                connection.listener.settings.name,
                connection.stage.value,
                request.key.label if request is not None else "",
                now - connection.since,
                connection.bytes_up,
                connection.bytes_down,
                connection.bytes_spliced,
                (request.key, connection.purpose) if request is not None else None,
                Sensitive(request.target) if request is not None else None,
            )

    # What listeners and connections ask of their front end.

    def admit(self, client: bytes) -> bool:
        """Count a new connection of `client`, unless that would break a budget."""
        if len(self.connections) >= self.settings.limits.max_connections:
            return False
        if self._per_client[client] >= self.settings.limits.max_connections_per_client:
            return False
        self._per_client[client] += 1
        return True

    def discharge(self, client: bytes | None) -> None:
        """Count a connection of `client` that is over."""
        if client is not None:
            self._per_client[client] -= 1
            if not self._per_client[client]:
                del self._per_client[client]

    def ended(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            connection.listener.open -= 1
            self.discharge(connection.client)
        if not self.connections and self._drained is not None:
            self._drained.set()

    def out_of_descriptors(self) -> None:
        self.counters.fd_exhaustion += 1
        _log.warn("out_of_descriptors", clients="wait", advice="raise LimitNOFILE")

    def internal_error(self, handler: object, error: BaseException) -> None:
        """An exception escaped: end what it belongs to, and only that."""
        self.services.internal_error(handler, error)
