"""The controller: three sessions with Tor, the state of its streams, and their look-ups.

Theory of operation
    A `StreamAttacher` is one life of Tor's control port.  It holds three sessions (why:
    `tor.control.session`), feeds event lines to `Streams`, takes listings as long as
    `Streams` wants them, one at a time, and carries out the actions.  Tor writes an event
    later than it lists the stream, so each listing is acted on only after the events have
    caught up; else a forged NEW event could be the only one there is.  While one listing is
    under way, hints for the next one gather, so that under load one listing serves many
    streams.  Each look-up is a task; an attachment is a command and a callback.

    `Controller` starts attachers for ever: Tor may come later, and may restart.

Invariants
    Nothing is done without `__LeaveStreamsUnattached 1`: without it Tor attaches streams by
    itself and unresolved names reach exits.  When a reload of Tor's takes it away, it is
    set again at once, and an error says what to write into torrc.
    ATTACHSTREAM follows a REDIRECTSTREAM only after Tor confirmed that.  Replies that a
    stream is gone, or not waiting any more, are normal; any other refusal closes the
    stream.  Nothing of a stream is logged.

Specification: control-spec §3.1 (SETCONF), §3.3 (GETCONF), §3.9 (GETINFO), §3.13
(ATTACHSTREAM), §3.15 (REDIRECTSTREAM), §3.16 (CLOSESTREAM); tor(1) for the option.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import ErrorKind, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.sharing import SharingTable
from isoproxy.tor.control.events import Bootstrap, parse_bootstrap
from isoproxy.tor.control.session import ControlSession
from isoproxy.tor.control.wire import ControlReply, command
from stemns_plugin.stemns_directory import ControlPortFile
from stemns_plugin.streams import (
    Abandon,
    Action,
    Attach,
    Close,
    CloseReason,
    LookUp,
    Redirect,
    Streams,
)
from stemns_plugin.suffix_router import kind_of

_log = logger("stemns")

OPTION: Final = "__LeaveStreamsUnattached"
OLDEST_TOR: Final = (0, 4, 5, 1)
_EVENTS: Final = ("STREAM", "SIGNAL", "CONF_CHANGED", "STATUS_CLIENT")
_BOOTSTRAP: Final = "status/bootstrap-phase"
_BENIGN: Final = frozenset({250, 551, 552, 555})
_VERSION: Final = re.compile(rb"(\d+)\.(\d+)\.(\d+)\.(\d+)")
_NEWS_OF_TOR: Final = (
    b"650 SIGNAL RELOAD",
    b"650 SIGNAL HUP",
    b"650-CONF_CHANGED",
    b"650 CONF_CHANGED",
    b"650 STATUS_CLIENT NOTICE BOOTSTRAP",
    b"650 STATUS_CLIENT WARN BOOTSTRAP",
)
"""What tells that it is time to ask Tor itself how it is."""

HOW_TO_SET: Final = (
    f"Tor would send names to exits before they are resolved.  Write the line\n"
    f"    {OPTION} 1\n"
    "into Tor's torrc (not only with SETCONF: a reload would forget it), reload Tor, and start "
    "stemns again"
)


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Where Tor is, and what answers are believed."""

    control: Endpoint | ControlPortFile
    password: str | None = field(default=None, repr=False)
    allow_internal: bool = False

    def endpoint(self) -> Endpoint:
        """Where the control port is now; raises OperationError."""
        return self.control if isinstance(self.control, Endpoint) else self.control.read()


IsOurs = Callable[[str], bool]
Find = Callable[[LookUp], Awaitable[Target]]


class UnsafeTor(OperationError):
    """Tor's settings are such that names would leak; starting again would not help."""


class StreamAttacher:
    """The controller of one running Tor; `run` ends when Tor does.

    is_ours  whether a host must be looked up
    find     looks it up
    """

    def __init__(self, settings: ControllerSettings, is_ours: IsOurs, find: Find) -> None:
        self._settings = settings
        self._find = find
        self._streams = Streams(is_ours, SharingTable(), allow_internal=settings.allow_internal)
        self._wake = asyncio.Event()
        self._check_wanted = asyncio.Event()
        self._lookups: dict[int, asyncio.Task[None]] = {}
        self._duties: set[asyncio.Task[None]] = set()
        self._keys = ["stream-status"]
        self.is_ready = False
        self.version = b""
        self.bootstrap: Bootstrap | None = None
        self.on_ready: Callable[[], None] = lambda: None
        """Called once, when streams are served."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when `bootstrap` or `automaps` may have changed."""

    async def run(self) -> None:
        """Serve Tor's streams until the connection ends; raises OperationError."""
        endpoint = self._settings.endpoint()
        async with contextlib.AsyncExitStack() as stack:

            async def connect() -> ControlSession:
                opened = await ControlSession.open(endpoint, self._settings.password)
                stack.callback(opened.close)
                return opened

            self._commands = await connect()
            await self._check_tor()
            self._events, self._queries = await connect(), await connect()
            await self._events.subscribe(*_EVENTS, on_line=self._on_line)
            self._check_wanted.set()  # for a reload that came before we could hear of it
            stack.push_async_callback(self._end_tasks)
            self._start(self._list_streams())
            self._start(self._keep_safe())
            connections = (self._commands, self._events, self._queries)
            await asyncio.wait(
                {*(connection.closed for connection in connections), *self._duties},
                return_when=asyncio.FIRST_COMPLETED,
            )
            for duty in self._duties:
                if duty.done():
                    duty.result()

    async def _check_tor(self) -> None:
        """Refuse a Tor that cannot be controlled safely; raises UnsafeTor."""
        version = await self._commands.request(command("GETINFO", "version"))
        self.version = version.lines[0].removeprefix(b"version=")
        match = _VERSION.match(self.version)
        if match is None or tuple(map(int, match.groups())) < OLDEST_TOR:
            raise UnsafeTor("stemns needs Tor 0.4.5.1 or later; install a current Tor")
        if await self._setting(OPTION) != b"1":
            raise UnsafeTor(HOW_TO_SET)
        await self._learn_mapping()
        await self._learn_bootstrap()

    @property
    def automaps(self) -> bool:
        """Whether Tor hands out virtual addresses (AutomapHostsOnResolve)."""
        return self._streams.automaps

    async def _learn_mapping(self) -> None:
        """Ask for virtual addresses too, once Tor hands them out."""
        self._streams.automaps = await self._setting("AutomapHostsOnResolve") == b"1"
        if self._streams.automaps and len(self._keys) == 1:
            self._keys.append("address-mappings/all")

    async def _learn_bootstrap(self) -> None:
        reply = await self._commands.request(command("GETINFO", _BOOTSTRAP))
        found = parse_bootstrap(reply.lines[0].removeprefix(f"{_BOOTSTRAP}=".encode()))
        if reply.is_ok and found is not None:
            self.bootstrap = found
        self.on_news()

    async def _setting(self, name: str) -> bytes:
        reply = await self._commands.request(command("GETCONF", name))
        return reply.lines[0].partition(b"=")[2] if reply.is_ok else b""

    def _start(self, duty: Coroutine[None, None, None]) -> None:
        self._duties.add(asyncio.create_task(duty))

    async def _end_tasks(self) -> None:
        tasks = [*self._duties, *self._lookups.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what comes in

    def _on_line(self, line: bytes) -> None:
        if line.startswith(_NEWS_OF_TOR):
            self._check_wanted.set()
            return
        self._streams.on_line(line)
        if self._streams.wants_listing:
            self._wake.set()

    async def _list_streams(self) -> None:
        """Look at Tor's streams as often as there is a reason to."""
        while True:
            self._wake.clear()
            if self._streams.wants_listing:
                self._streams.begin_listing()
                lines = await self._queries.listing(*self._keys)
                await self._events.caught_up()  # every stream listed has announced itself
                mappings = lines if len(self._keys) > 1 else ()
                self._carry_out(self._streams.on_listing(lines, mappings))
                if not self.is_ready:
                    self.is_ready = True
                    self.on_ready()
            if not self._streams.wants_listing:
                await self._wake.wait()

    async def _keep_safe(self) -> None:
        """After news of Tor see that it still leaves streams to us, and how far it has come."""
        while True:
            await self._check_wanted.wait()
            self._check_wanted.clear()
            if await self._setting(OPTION) != b"1":
                await self._commands.request(command("SETCONF", f"{OPTION}=1"))
                _log.err(
                    "streams_were_not_left_to_us",
                    consequence="unresolved names may have reached exits; the option is set again",
                    advice=HOW_TO_SET,
                )
            await self._learn_mapping()
            await self._learn_bootstrap()

    # -- what goes out

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Attach):
                self._attach(action.stream)
            elif isinstance(action, Close):
                self._close(action.stream, action.reason)
            elif isinstance(action, Redirect):
                self._redirect(action)
            elif isinstance(action, LookUp):
                task = asyncio.create_task(self._look_up(action))
                self._lookups[action.stream] = task
            elif isinstance(action, Abandon):
                lookup = self._lookups.pop(action.stream, None)
                if lookup is not None:
                    lookup.cancel()

    def _send(self, line: bytes) -> asyncio.Future[ControlReply] | None:
        """Send a command; None if the connection is about to end."""
        try:
            return self._commands.send(line)
        except OperationError:
            return None

    def _attach(self, stream: int) -> None:
        reply = self._send(command("ATTACHSTREAM", str(stream), "0"))
        if reply is not None:
            reply.add_done_callback(lambda done: self._confirm(stream, done))

    def _confirm(self, stream: int, done: asyncio.Future[ControlReply]) -> None:
        """After ATTACHSTREAM: gone or attached is well, refused is not."""
        if done.cancelled() or done.exception() is not None:
            return
        if done.result().code not in _BENIGN:
            self._close(stream, CloseReason.RESOLVEFAILED)

    def _redirect(self, action: Redirect) -> None:
        stream = action.stream
        reply = self._send(command("REDIRECTSTREAM", str(stream), action.host))
        if reply is None:
            return

        def redirected(done: asyncio.Future[ControlReply]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            if done.result().is_ok:
                self._attach(stream)
            elif done.result().code != 552:
                self._close(stream, CloseReason.RESOLVEFAILED)

        reply.add_done_callback(redirected)

    def _close(self, stream: int, reason: CloseReason) -> None:
        reply = self._send(command("CLOSESTREAM", str(stream), str(int(reason))))
        if reply is not None:
            reply.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _look_up(self, action: LookUp) -> None:
        actions: list[Action]
        try:
            target = await self._find(action)
            actions = self._streams.on_found(action.stream, target)
        except Exception as error:  # a defect of a name plugin harms this stream alone
            kind = kind_of(error)
            if kind is ErrorKind.INTERNAL:
                _log.err("internal_error", error=error)
            actions = self._streams.on_failed(action.stream, kind)
        finally:
            if self._lookups.get(action.stream) is asyncio.current_task():
                del self._lookups[action.stream]
        self._carry_out(actions)
        if self._streams.wants_listing:
            self._wake.set()


class Controller:
    """Serves Tor for ever, through its restarts; arguments as those of `StreamAttacher`."""

    def __init__(self, settings: ControllerSettings, is_ours: IsOurs, find: Find) -> None:
        self._settings = settings
        self._is_ours = is_ours
        self._find = find
        self._attacher: StreamAttacher | None = None
        self.first_ready = asyncio.Event()
        """Set once streams have been served."""
        self.version = b""
        """Tor's version, the last that was heard."""
        self.bootstrap: Bootstrap | None = None
        self.automaps = False
        self.on_news: Callable[[], None] = lambda: None
        """Called when one of these may have changed."""

    @property
    def is_ready(self) -> bool:
        """Whether streams are served now."""
        return self._attacher is not None and self._attacher.is_ready

    async def run(self) -> None:
        """Serve until cancelled; raises UnsafeTor where a retry would not help."""
        backoff = Backoff(0.1, 10.0)
        while True:
            self._attacher = attacher = StreamAttacher(self._settings, self._is_ours, self._find)
            attacher.on_ready = self.first_ready.set
            attacher.on_news = self._heard
            try:
                await attacher.run()
                _log.warn("control_port_closed", action="connecting anew")
            except UnsafeTor:
                raise
            except OperationError as error:
                _log.warn("control_port_unusable", reason=str(error), action="trying again")
            if attacher.is_ready:
                backoff.reset()
            self._attacher = None
            await asyncio.sleep(backoff.next())

    def _heard(self) -> None:
        assert self._attacher is not None
        self.version = self._attacher.version
        self.bootstrap = self._attacher.bootstrap
        self.automaps = self._attacher.automaps
        self.on_news()
