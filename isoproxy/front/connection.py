"""One client from its first byte to its last: its socket, and the phase that it is in.

Theory of operation
    A connection goes through the states of `states`.  Each has a phase in a module of its
    own, which is given the connection, acts on its events, and hands over to the next:
    `handshake` → `opening` → `relaying`, or `carrying` for Bitcoin's peers → the end, and
    `closing` where the client is told why there is no stream.  The connection knows none of
    them; it forwards what happens, and keeps what `isoproxy status` shows.

Invariants
    Whatever happens, the socket is closed and `ended(connection)` is called once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from isoproxy.front.judgement import ProxyRequest
from isoproxy.front.services import FrontServices
from isoproxy.front.states import TRANSITIONS, Event, State
from isoproxy.front.statistics import FlowView, ListenerStatistics
from isoproxy.isolation import APP, Purpose
from isoproxy.observe.log import Sensitive


class Phase:
    """One phase of `connection`; it is there from `begin` until another is entered."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def bytes_up(self) -> int:
        """Bytes of the client that Tor has taken."""
        return 0

    @property
    def bytes_down(self) -> int:
        """Bytes that the client was sent."""
        return 0

    @property
    def bytes_spliced(self) -> tuple[int, int]:
        """Of the bytes up and down, those that were moved within the kernel."""
        return 0, 0

    def begin(self) -> None:
        """Start; the connection is in this phase already, and may leave it meanwhile."""
        raise NotImplementedError

    def on_events(self, events: int) -> None:
        """Something changed at the client's socket; `events` is an epoll mask, and a hint."""

    def abort(self) -> None:
        """End the connection now, and what this phase has under way with it."""
        raise NotImplementedError


class Connection:
    """A client on `sock`; `client_id` is its field of the isolation tuple.

    `request` is None before it is complete; `purpose` is what its stream to Tor is for.
    """

    __slots__ = (
        "_ended",
        "client_id",
        "phase",
        "purpose",
        "request",
        "services",
        "since",
        "sock",
        "state",
        "statistics",
    )

    def __init__(
        self,
        services: FrontServices,
        statistics: ListenerStatistics,
        sock: socket.socket,
        client_id: bytes,
        ended: Callable[[Connection], None],
    ) -> None:
        self.services = services
        self.statistics = statistics
        self.sock = sock
        self.client_id = client_id
        self._ended = ended
        self.since = services.reactor.loop.time()
        self.state = State.HANDSHAKE
        self.phase: Phase | None = None
        self.purpose: Purpose = APP
        self.request: ProxyRequest | None = None

    def start(self, first: Phase) -> None:
        """Begin with the `first` phase, which is that of the handshake."""
        self.phase = first
        first.begin()

    def enter(self, event: Event, phase: Phase) -> None:
        """`event` has ended the current phase; go on with `phase`."""
        self.state = TRANSITIONS[self.state][event]
        self.phase = phase
        phase.begin()

    def end(self) -> None:
        """It is over, and the socket is closed."""
        self.state = TRANSITIONS[self.state][Event.ENDED]
        self.phase = None
        self._ended(self)

    def hang_up(self) -> None:
        """Close the socket without a word; it is over."""
        self.services.reactor.forget(self.sock.fileno())
        self.sock.close()
        self.end()

    def send(self, data: bytes) -> bool:
        """Write a few bytes to a client whose buffer is empty; False when it is gone."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def on_events(self, fd: int, events: int) -> None:
        if self.phase is not None:
            self.phase.on_events(events)

    def abort(self) -> None:
        """End now, whatever the phase; does nothing once it is over."""
        if self.phase is not None:
            self.phase.abort()

    def view(self, now: float) -> FlowView:
        """It as `isoproxy status` shows it."""
        request, phase = self.request, self.phase
        return FlowView(
            self.statistics.listener,
            self.state.value,
            request.key.label if request is not None else "",
            now - self.since,
            phase.bytes_up if phase is not None else 0,
            phase.bytes_down if phase is not None else 0,
            phase.bytes_spliced if phase is not None else (0, 0),
            (request.key, self.purpose) if request is not None else None,
            Sensitive(request.target) if request is not None else None,
        )
