"""What every phase of every client needs: passed down, from the front end to the last phase.

Theory of operation
    `FrontServices` is frozen: who is asked for what never changes.  What a reload may
    change is in one small place, `FrontServices.settings`, and is read when it is needed.

    The protocols `Names` and `Bitcoin` say what the front end asks of rooms that it does
    not know: of a resolver in this process or in another one, and of the translation
    between Bitcoin's two transports.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from isoproxy.bitcoin.flow import Flow
from isoproxy.errors import ErrorKind
from isoproxy.front.pipes import PipePool
from isoproxy.front.statistics import Counters
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.reactor import Reactor
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.tls.termination import Terminator
from isoproxy.tor.dialer import Dialer

_log: Final = logger("front")
_Result = TypeVar("_Result")


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


class Bitcoin(Protocol):
    """What carries streams to Bitcoin peers."""

    @property
    def ports(self) -> frozenset[int]:
        """Destination ports whose streams are for Bitcoin peers."""
        ...

    def is_v1(self, first: bytes) -> bool | None:
        """Whether a client that began with `first` speaks v1 of a known network.

        None while that is open: three bytes may be too few.
        """
        ...

    def refuse(self, flow: Flow, dial_error: ErrorKind | None = None) -> None:
        """Count a flow of a v1 client that cannot be carried, for want of a stream or of v2."""
        ...

    async def carry(
        self,
        client: socket.socket,
        early: bytes,
        peer: socket.socket,
        flow: Flow,
        client_id: bytes,
    ) -> None:
        """Carry one stream to its end, and close both sockets.

        `early` is what the client has sent already; `peer` is the stream to `flow.peer`
        that was opened under `flow.key` for the client field `client_id`.  Cancelled, it
        closes both sockets.
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
class FrontSettings:
    """What a reload may change; `names` is None where no name is resolved."""

    limits: Limits = field(default_factory=Limits)
    names: Names | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FrontServices:
    """What phases use.  `bitcoin` is None where no port is claimed for Bitcoin's peers, and
    `https` where no listener answers TLS."""

    reactor: Reactor
    isolator: Isolator
    dialer: Dialer
    deadlines: Deadlines
    pipes: PipePool
    bitcoin: Bitcoin | None
    settings: FrontSettings
    counters: Counters = field(default_factory=Counters)
    accepted: Counter[str] = field(default_factory=Counter)
    """Clients that came, by listener."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    https: Terminator | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.reactor.loop

    @property
    def bitcoin_ports(self) -> frozenset[int]:
        """Destination ports whose streams are for Bitcoin peers."""
        return self.bitcoin.ports if self.bitcoin is not None else frozenset()

    def spawn(self, owner: object, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Run `work` in a task that the front end waits for when it ends.

        An exception that escapes it ends `owner`, which has an `abort`.
        """

        def ended(task: asyncio.Task[_Result]) -> None:
            self.tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self.internal_error(owner, error)

        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(ended)
        return task

    def out_of_descriptors(self) -> None:
        """Clients have to wait because this process has no descriptor left."""
        self.counters.fd_exhaustion += 1
        _log.warn("out_of_descriptors", clients="wait", advice="raise LimitNOFILE")

    def internal_error(self, handler: object, error: BaseException) -> None:
        """An exception escaped: end what it belongs to, and only that."""
        self.counters.defects += 1
        _log.err("internal_error", error=error)
        abort = getattr(handler, "abort", None)
        if abort is not None:
            abort()
