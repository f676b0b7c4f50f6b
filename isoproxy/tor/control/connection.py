"""Tor's control port for asyncio: follows New Identity, circuits and the start of Tor.

Theory of operation
    `Control` keeps one connection to the control port open for as long as it lives and
    reconnects with back-off for ever.  stem proves who we are (PROTOCOLINFO, SAFECOOKIE,
    password or nothing); it does so on a blocking socket, so the handshake runs
    in a worker thread with a deadline.  Then the socket becomes a stream of the event
    loop, read by `control_session`: no thread stays, and the loop never waits.

    After each connect: SETEVENTS first, then version, circuits and bootstrap state, so
    that nothing falls between.  A filter in front of Tor (onion-grater) may refuse any of
    them; what is refused is then simply not known.

    With `own=True` the connection takes ownership of Tor (TAKEOWNERSHIP): Tor exits as
    soon as this connection closes, which the kernel does for us even if we are killed.
    Without it, closing never ends Tor: stem's own rule, to take ownership by process id,
    is part of its `Controller`, which is not used here.

Invariants
    Everything works with the endpoint `none`: the state is then OFF for good, and
    requests fail with a clear error.
    Event lines hold strings of Tor's clients and are not trusted: what does not match
    `control_wire`'s grammar is dropped.  STREAM events, which hold raw host names, are
    subscribed to only on request, and are handed over as raw bytes.
    A NEWNYM may be missed while there is no connection; therefore each reconnect counts
    as one, and the caches of the old identity go.

Specification: control-spec §3.5, §3.7, §3.9, §3.23, §3.24.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import stem
import stem.connection
import stem.socket

from isoproxy.errors import (
    ConfigError,
    ErrorKind,
    IsoproxyError,
    LocalProtocolError,
    OperationError,
)
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import logger
from isoproxy.tor.control.session import Session, connect, not_connected
from isoproxy.tor.control.wire import (
    Bootstrap,
    Circuit,
    Reply,
    Signal,
    parse_bootstrap,
    parse_circuit,
    parse_event,
)
from isoproxy.tor.observers import Observers

_log = logger("control")
# stem logs whole control messages, and those hold host names
logging.getLogger("stem").disabled = True

HANDSHAKE_S: Final = 10.0
_EVENTS: Final = ("SIGNAL", "STATUS_CLIENT", "CIRC")
_MAX_HANDSHAKE_LINES: Final = 64
_MAX_HANDSHAKE_LINE: Final = 64 * 1024


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


class _Handshake:
    """What stem authenticates on: a blocking socket that sends a line and reads a reply."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=1024)
        self._lines = 0

    def msg(self, text: str) -> Any:
        """Send `text` and wait for the `ControlMessage` that answers it."""
        try:
            self._sock.sendall(text.encode() + b"\r\n")
        except OSError as error:
            raise stem.SocketClosed("sending failed") from error
        return stem.socket.recv_message(self)

    def readline(self) -> bytes:
        """For stem: the next line of the reply, bounded in length and number."""
        self._lines += 1
        return (
            self._file.readline(_MAX_HANDSHAKE_LINE) if self._lines <= _MAX_HANDSHAKE_LINES else b""
        )

    def connect(self) -> None:
        """For stem, which would reconnect after a refusal: `Control` does that, later."""
        raise stem.SocketClosed("the control port ended the handshake")

    def close(self) -> None:
        self._file.close()


def _authenticate(sock: socket.socket, password: str | None) -> None:
    """Blocking: prove to the control port who we are, or raise OperationError.

    stem would send the cookie itself where it cannot be proven; a program that has taken
    Tor's port would learn it, or any other file of that size.
    """
    handshake = _Handshake(sock)
    try:
        offer = stem.connection.get_protocolinfo(handshake)
        offer.auth_methods = tuple(
            method for method in offer.auth_methods if method != stem.connection.AuthMethod.COOKIE
        )
        stem.connection.authenticate(handshake, password=password, protocolinfo_response=offer)
    except (stem.connection.AuthenticationFailure, stem.ControllerError, ValueError) as error:
        raise OperationError(_advice(error), kind=ErrorKind.TOR_UNREACHABLE) from None
    finally:
        handshake.close()


def _advice(error: Exception) -> str:
    connection = stem.connection
    if isinstance(error, connection.MissingPassword | connection.IncorrectPassword):
        return "Tor's control port wants another password; set the one Tor was given"
    if isinstance(error, connection.UnreadableCookieFile):
        return (
            "Tor's control cookie cannot be read; add this user to the group of the cookie "
            "file (debian-tor on Debian) and set CookieAuthFileGroupReadable 1"
        )
    if isinstance(error, connection.CookieAuthFailed):
        return "Tor refused its own control cookie; it may have restarted meanwhile"
    return "the program at the control port does not authenticate as Tor does"


async def _shake_hands(sock: socket.socket, password: str | None) -> None:
    """Authenticate in a worker thread; when cancelled, leave no thread on the socket."""
    sock.settimeout(HANDSHAKE_S)
    work = asyncio.ensure_future(asyncio.to_thread(_authenticate, sock, password))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise
    sock.setblocking(False)


class Control:
    """A control connection that lasts: reconnects for ever, and says how it stands.

    `password` is for HashedControlPassword; `own` ties Tor's life to the connection;
    `events` names further events, delivered raw to `on_raw_event`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        password: str | None = None,
        own: bool = False,
        events: Sequence[str] = (),
        backoff: Backoff | None = None,
    ) -> None:
        if password is not None and not password.isprintable():
            raise ConfigError("the control port's password may hold printable characters only")
        self.endpoint = endpoint
        self.version: str | None = None
        self.bootstrap: Bootstrap | None = None
        self.connects = 0
        self._password = password
        self._own = own
        self._events = (*_EVENTS, *events)
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._state = ControlState(Phase.OFF)
        self._circuits: dict[str, Circuit] = {}
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._newnym: Observers[None] = Observers()
        self._bootstraps: Observers[Bootstrap] = Observers()
        self._states: Observers[ControlState] = Observers()
        self._raw: Observers[bytes] = Observers()

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

    def on_raw_event(self, callback: Callable[[bytes], None]) -> Callable[[], None]:
        """Hand `callback` every event message as it came: untrusted; the result ends that."""
        return self._raw.add(callback)

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

    async def message(self, text: str) -> Reply:
        """Send one command line, in the control protocol's own words.

        Raises OperationError if there is no connection or no answer.
        """
        if not text or not text.isprintable():
            raise LocalProtocolError("a control command is one line of printable characters")
        if self._session is None:
            raise not_connected()
        return await self._session.request(text)

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
            except (FileNotFoundError, ConnectionRefusedError):
                problem = "nothing listens there; is Tor running?"
            except PermissionError:
                problem = "this user may not use Tor's control socket"
            except OSError as error:
                problem = error.strerror or "no answer"
            except IsoproxyError as error:
                problem = str(error)
            except Exception as error:  # a defect of ours must not end the reconnecting
                problem = f"{type(error).__name__} in isoproxy; please report it"
                _log.err("control_port_defect", error=error)
            delay = self._backoff.next()
            self._set(ControlState(Phase.BACKING_OFF, delay, problem))
            await asyncio.sleep(delay)

    async def _connection(self) -> None:
        """From connect to the connection's end."""
        async with asyncio.timeout(HANDSHAKE_S):
            sock = await connect(self.endpoint)
            try:
                await _shake_hands(sock, self._password)
                reader, writer = await asyncio.open_connection(sock=sock)
            except BaseException:
                sock.close()
                raise
        self.bootstrap = None
        session = Session(reader, writer, self._event)
        reading = asyncio.create_task(session.read(), name="control port reader")
        self._session = session
        try:
            await self._greet()
            self._up()
            await asyncio.shield(reading)
        finally:
            self._session = None
            self._circuits.clear()
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()
            await session.close()

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
        if (await self.message("SETEVENTS " + " ".join(self._events))).is_ok:
            return
        granted: list[str] = []
        for event in self._events:
            if (await self.message("SETEVENTS " + " ".join([*granted, event]))).is_ok:
                granted.append(event)

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

    def _event(self, message: bytes) -> None:
        self._raw.notify(message)
        match parse_event(message):
            case Signal(name="NEWNYM"):
                self._newnym.notify(None)
            case Bootstrap() as bootstrap:
                self._bootstrapped(bootstrap)
            case Circuit(is_gone=True, id=gone):
                self._circuits.pop(gone, None)
            case Circuit() as circuit:
                self._circuits[circuit.id] = circuit

    def _bootstrapped(self, bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self._bootstraps.notify(bootstrap)

    def _set(self, state: ControlState) -> None:
        before, self._state = self._state, state
        if Phase.READY in (before.phase, state.phase):
            _log.info("control_port", phase=state.phase)
        if state != before:
            self._states.notify(state)
