"""Tor's control port for as long as we live: New Identity, circuits, the start of Tor.

Theory of operation
    `Control` keeps one session with the control port open (`control.session`) and
    reconnects with back-off for ever.

    After each connect: SETEVENTS first, then version, circuits and bootstrap state, so
    that nothing falls between.  A filter in front of Tor (onion-grater) may refuse any of
    them; what is refused is then simply not known.

    With `own=True` the connection takes ownership of Tor (TAKEOWNERSHIP): Tor exits as
    soon as this connection closes, which the kernel does for us even if we are killed.
    Without it, closing never ends Tor.

Invariants
    Everything works with the endpoint `none`: the state is then OFF for good, and
    requests fail with a clear error.
    Event lines hold strings of Tor's clients and are not trusted: what does not match the
    grammar of `control.events` is dropped.  STREAM events, which hold raw host names, are
    not for this connection.
    A NEWNYM may be missed while there is no connection; therefore each reconnect counts
    as one, and the caches of the old identity go.

Specification: control-spec §3.4 (SETEVENTS), §3.7 (SIGNAL), §3.9 (GETINFO), §3.23
(TAKEOWNERSHIP).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import ConfigError, ErrorKind, IsoproxyError, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import logger
from isoproxy.tor.control.events import (
    Bootstrap,
    Circuit,
    DescriptorUpload,
    Signal,
    parse_bootstrap,
    parse_circuit,
    parse_event,
)
from isoproxy.tor.control.session import ControlSession, not_connected
from isoproxy.tor.control.wire import ControlReply, command
from isoproxy.tor.observers import Observers

_log = logger("control")

UPLOADS: Final = "HS_DESC"
_EVENTS: Final = ("SIGNAL", "STATUS_CLIENT", "CIRC", UPLOADS)
_MAX_REQUESTS: Final = 64


class Phase(enum.Enum):
    """Where a control connection is in its life."""

    OFF = "off"
    CONNECTING = "connecting"
    READY = "ready"
    BACKING_OFF = "backing off"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ControlState:
    """A phase; while backing off also the wait in seconds and what went wrong."""

    phase: Phase
    retry_in: float | None = None
    problem: str | None = None

    def __str__(self) -> str:
        if self.retry_in is None:
            return self.phase.value
        return f"{self.phase.value} {self.retry_in:.1f} s: {self.problem}"


class Control:
    """A control connection that lasts: reconnects for ever, and says how it stands.

    `password` is for HashedControlPassword; `own` ties Tor's life to the connection.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        password: str | None = None,
        own: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        if password is not None and not password.isprintable():
            raise ConfigError("the control port's password may hold printable characters only")
        self.endpoint = endpoint
        self.version: str | None = None
        self.bootstrap: Bootstrap | None = None
        self.connects = 0
        self.signals = 0
        """How many signals to Tor, New Identity among them, were heard of."""
        self.hears: frozenset[str] = frozenset()
        """The events that Tor, and a filter in front of it, lets us follow."""
        self._password = password
        self._own = own
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._state = ControlState(Phase.OFF)
        self._circuits: dict[str, Circuit] = {}
        self._session: ControlSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._newnym: Observers[None] = Observers()
        self._bootstraps: Observers[Bootstrap] = Observers()
        self._states: Observers[ControlState] = Observers()
        self._uploads: Observers[str] = Observers()

    @property
    def state(self) -> ControlState:
        return self._state

    def on_newnym(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Tell `callback` of each New Identity; the result ends that."""
        return self._newnym.add(lambda _: callback())

    def on_bootstrap(self, callback: Callable[[Bootstrap], None]) -> Callable[[], None]:
        """Tell `callback` how far Tor's start has come; the result ends that."""
        return self._bootstraps.add(callback)

    def on_state(self, callback: Callable[[ControlState], None]) -> Callable[[], None]:
        """Tell `callback` of each change of `state`; the result ends that."""
        return self._states.add(callback)

    def on_upload(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Tell `callback` the address (without `.onion`) of each onion service of this Tor
        whose descriptor a directory has taken; the result ends that."""
        return self._uploads.add(callback)

    def start(self) -> None:
        """Begin to connect, in the background; with the endpoint `none`, do nothing."""
        if not self.endpoint.is_none and self._task is None:
            self._task = asyncio.create_task(self._run(), name="control port")

    async def close(self) -> None:
        """End the connection; with `own`, that ends Tor too."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._set(ControlState(Phase.CLOSED))

    async def wait_ready(self) -> None:
        """Until the connection is up; put a deadline around it.  OperationError for `none`."""
        if self.endpoint.is_none:
            raise not_connected()
        if self._state.phase is not Phase.READY:
            await self._states.first(lambda state: state.phase is Phase.READY)

    async def message(self, text: str) -> ControlReply:
        """Send one command line, in the control protocol's own words.

        Raises OperationError if there is no connection or no answer.
        """
        line = command(*text.split(" "))
        if self._session is None:
            raise not_connected()
        if self._session.pending >= _MAX_REQUESTS:
            raise OperationError("too many control requests are under way", kind=ErrorKind.BUSY)
        return await self._session.request(line)

    async def getinfo(self, key: str) -> bytes:
        """Tor's answer to `GETINFO key`; OperationError if it has none."""
        reply = await self.message(f"GETINFO {key}")
        name, _, value = reply.lines[0].partition(b"=")
        if not reply.is_ok or name != key.encode():
            raise OperationError(f"Tor, or a filter in front of it, does not tell {key}")
        return value.removeprefix(b"\n")

    async def signal_newnym(self) -> None:
        """Ask Tor for New Identity; within 10 s of the last one Tor itself delays it."""
        reply = await self.message("SIGNAL NEWNYM")
        if not reply.is_ok:
            raise OperationError("Tor, or a filter in front of it, refused NEWNYM")

    def circuits(self) -> tuple[Circuit, ...]:
        """The circuits known from events: those up now, credentials as first reported."""
        return tuple(self._circuits.values())

    async def refresh_circuits(self) -> tuple[Circuit, ...]:
        """The circuits as Tor lists them now, with the credentials they serve.

        Tor tells of credentials that a circuit got after it was built only here.
        """
        lines = (await self.getinfo("circuit-status")).split(b"\n")
        found = (parse_circuit(line) for line in lines)
        self._circuits = {circuit.id: circuit for circuit in found if circuit is not None}
        return self.circuits()

    async def _run(self) -> None:
        while True:
            self._set(ControlState(Phase.CONNECTING))
            problem = "the connection ended"
            try:
                await self._connection()
            except IsoproxyError as error:
                problem = str(error)
            except Exception as error:  # a defect of ours must not end the reconnecting
                problem = f"{type(error).__name__} in isoproxy; please report it"
                _log.err("internal_error", error=error)
            delay = self._backoff.next()
            self._set(ControlState(Phase.BACKING_OFF, delay, problem))
            await asyncio.sleep(delay)

    async def _connection(self) -> None:
        """From connect to the connection's end."""
        session = await ControlSession.open(self.endpoint, self._password, self._event)
        self.bootstrap = None
        self._session = session
        try:
            await self._greet()
            self._up()
            await asyncio.shield(session.closed)
        finally:
            self._session = None
            self._circuits.clear()
            session.close()

    async def _greet(self) -> None:
        """What is asked of Tor on each new connection."""
        if self._own and not (await self.message("TAKEOWNERSHIP")).is_ok:
            raise OperationError("Tor refused to be owned by isoproxy")
        await self._subscribe()
        for question in (self._learn_version, self._learn_bootstrap, self.refresh_circuits):
            with contextlib.suppress(OperationError):
                await question()
        if self._session is None:
            raise not_connected()

    async def _subscribe(self) -> None:
        self.hears = frozenset(_EVENTS)
        if (await self.message("SETEVENTS " + " ".join(_EVENTS))).is_ok:
            return
        granted: list[str] = []
        for event in _EVENTS:
            if (await self.message("SETEVENTS " + " ".join([*granted, event]))).is_ok:
                granted.append(event)
        self.hears = frozenset(granted)

    async def _learn_version(self) -> None:
        answer = await self.getinfo("version")
        self.version = answer.decode("ascii", "replace").split(" ")[0]

    async def _learn_bootstrap(self) -> None:
        found = parse_bootstrap(await self.getinfo("status/bootstrap-phase"))
        if found is not None:
            self._bootstrapped(found)

    def _up(self) -> None:
        self.connects += 1
        self._backoff.reset()
        self._set(ControlState(Phase.READY))
        if self.connects > 1:
            self._newnym.notify(None)

    def _event(self, reply: ControlReply) -> None:
        match parse_event(reply):
            case Signal(name):
                self.signals += 1
                if name == "NEWNYM":
                    self._newnym.notify(None)
            case Bootstrap() as bootstrap:
                self._bootstrapped(bootstrap)
            case Circuit(is_gone=True, id=gone):
                self._circuits.pop(gone, None)
            case Circuit() as circuit:
                self._circuits[circuit.id] = circuit
            case DescriptorUpload(address):
                self._uploads.notify(address)

    def _bootstrapped(self, bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self._bootstraps.notify(bootstrap)

    def _set(self, state: ControlState) -> None:
        before, self._state = self._state, state
        if Phase.READY in (before.phase, state.phase):
            _log.info("control_port", phase=state.phase)
        if state != before:
            self._states.notify(state)
