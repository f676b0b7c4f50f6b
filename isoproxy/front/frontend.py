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
from dataclasses import dataclass, field
from typing import Final, Protocol

from isoproxy.errors import ErrorKind
from isoproxy.front.connection import Connection, Stage
from isoproxy.front.listener import Listener, ListenerSettings
from isoproxy.front.peer_to_peer import PeerToPeer
from isoproxy.front.pipes import PipePool
from isoproxy.front.session import ProxyRequest
from isoproxy.isolation import ClientProtocol, Credentials, IsolationKey, Isolator, Purpose
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.reactor import Deadlines, Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.observe.log import Sensitive, logger
from isoproxy.observe.metrics import Histogram
from isoproxy.socks import Command
from isoproxy.tor.dialer import Dialer

_log: Final = logger("front")


class Names(Protocol):
    """Where names come from that are never sent to Tor."""

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        """The onion service, address or host that `target` stands for.

        Every look-up happens under `key`, for a client whose field of the isolation
        tuple is `client`.  With Want.ADDRESS onion services do not count.
        Raises NamingError.
        """
        ...


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


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets and deadlines of a front end."""

    max_connections: int = 20_000
    max_connections_per_client: int = 10_000
    handshake_timeout_s: float = 30.0
    idle_timeout_s: float = 86_400.0


@dataclass(slots=True)
class Counters:
    """What has happened since the start; nothing in here identifies anybody."""

    opened: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    spliced_up: int = 0
    """Of the bytes up, those that were moved within the kernel."""
    spliced_down: int = 0
    defects: int = 0
    fd_exhaustion: int = 0
    refusals: Counter[ErrorKind] = field(default_factory=Counter)
    handshakes: Counter[tuple[str, ClientProtocol | None, ErrorKind | None]] = field(
        default_factory=Counter
    )
    """By listener, protocol (None: it never became clear) and refusal (None: complete)."""
    requests: Counter[tuple[str, Command, ErrorKind | None]] = field(default_factory=Counter)
    """By listener, command and refusal (None: fulfilled)."""
    dials: Histogram = field(default_factory=Histogram)
    """Seconds from a request to Tor's answer."""

    def refused(self, kind: ErrorKind) -> None:
        self.refusals[kind] += 1

    def add(self, other: Counters) -> None:
        """Count what another process has counted as well."""
        self.opened += other.opened
        self.bytes_up += other.bytes_up
        self.bytes_down += other.bytes_down
        self.spliced_up += other.spliced_up
        self.spliced_down += other.spliced_down
        self.defects += other.defects
        self.fd_exhaustion += other.fd_exhaustion
        self.refusals.update(other.refusals)
        self.handshakes.update(other.handshakes)
        self.requests.update(other.requests)
        self.dials.add(other.dials)


@dataclass(frozen=True, slots=True)
class FlowView:
    """One connection as `isoproxy status` shows it: no name, no address, no credential.

    `carrier` is what its circuit is chosen by (of a worker's, what Tor knows it by), None
    before it is known; `target` is what the client asked for, which shows where safe
    logging is off.
    """

    listener: str
    stage: str
    key: str
    age_s: float
    bytes_up: int
    bytes_down: int
    spliced: tuple[int, int] = (0, 0)
    carrier: tuple[IsolationKey, Purpose] | Credentials | None = None
    target: Sensitive | None = None


class FrontEnd:
    """All listeners of a process.

    names          resolves the names that Tor must not see, or None
    p2p            carries streams to Bitcoin peers, or None
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
        p2p: PeerToPeer | None = None,
        main: MainProcess | None = None,
        processes: int = 1,
    ) -> None:
        self.reactor = reactor
        self.loop = reactor.loop
        self.isolator = isolator
        self.dialer = dialer
        self.limits = limits if limits is not None else Limits()
        self.names = names
        self.p2p = p2p
        self.main = main
        self.processes = processes
        self.pipes = PipePool.for_this_machine(processes)
        self.deadlines = Deadlines(self.loop)
        self.counters = Counters()
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.listeners: dict[str, Listener] = {}
        self.accepted: Counter[str] = Counter()
        self._per_client: Counter[bytes] = Counter()
        self._drained: asyncio.Event | None = None

    @property
    def p2p_ports(self) -> frozenset[int]:
        """Destination ports whose streams are for Bitcoin peers."""
        return self.p2p.ports if self.p2p is not None else frozenset()

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
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.deadlines.close()
        self.pipes.close()

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
        if len(self.connections) >= self.limits.max_connections:
            return False
        if self._per_client[client] >= self.limits.max_connections_per_client:
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

    def defect(self, handler: Handler, error: BaseException) -> None:
        """An exception escaped: end what it belongs to, and only that."""
        self.counters.defects += 1
        _log.err("internal_error", error=error)
        if isinstance(handler, Connection) and handler.stage is not Stage.CLOSED:
            handler.abort()
