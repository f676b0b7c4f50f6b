"""A control port for workstations that may bring names to their own streams, and no more.

Theory of operation
    On a gateway several workstations share one Tor.  A workstation that runs its own
    StemNS (or ours) needs REDIRECTSTREAM, and with the real control port it could send
    other workstations' streams to where it likes, choose circuits, or watch who goes
    where.  The guard is Tor's only controller; workstations get the guard.

    Towards Tor the guard is a `Session`: streams that are not under the configured
    suffixes are attached at once, whoever asks.  The look-up of one that is, it *offers*
    to the controller that is connected from the very address the stream came from.  That
    controller sees the two events it waits for, NEW and CONTROLLER_WAIT, written anew.  Its
    REDIRECTSTREAM and ATTACHSTREAM 0 are the answer to the look-up; CLOSESTREAM, or its
    disappearance, is a failure.

    `judge` is the policy: from a command line and the offers to this client to what is
    said and what is done.  All else a control port can do is refused or answered here.

Invariants
    No byte of a client reaches Tor: what Tor is told is built from a checked stream and a
    validated target.  A client learns nothing of streams that are not offered to it, not
    even how many there are: it is told numbers of the guard's.  A stream whose origin is
    not certain is offered to nobody, and closed.  A stream under a suffix is never attached
    before it was redirected away from it.  What a client sends delays no other.
    With `username` set, streams of other users are closed without being offered: a web
    page that tries a name cannot tell whether somebody here resolves such names.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final, cast

from isoproxy.errors import ErrorKind, NamingError, PolicyRefusal, ProtocolError
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from stemns_plugin.controller import Controller, ControllerSettings
from stemns_plugin.grammar import StreamEvent, write_event
from stemns_plugin.services import Services
from stemns_plugin.streams import LookUp
from stemns_plugin.wire import LineSplitter

MAX_CLIENTS: Final = 64
MAX_CLIENTS_OF_ONE: Final = 16
"""Of one address, so that no workstation can keep the others out."""
MAX_OFFERS: Final = 1024
MAX_UNREAD: Final = 1024 * 1024
OFFER_S: Final = 110.0
"""Seconds for an answer: less than the 120 s after which Tor itself gives up."""

_EVENTS: Final = frozenset({b"STREAM", b"SIGNAL", b"CONF_CHANGED", b"STATUS_CLIENT", b"EXTENDED"})
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
_MAX_KEYS: Final = 8
_KEY: Final = re.compile(rb"[!#-~]{1,64}")
_INFO: Final = {
    b"version": b"0.4.9.11",
    b"status/bootstrap-phase": b'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"',
}
_CONF: Final = {
    b"__leavestreamsunattached": b"__LeaveStreamsUnattached=1",
    b"automaphostsonresolve": b"AutomapHostsOnResolve=0",
}


@dataclass(slots=True)
class Offer:
    """A stream whose name one client may resolve; `target` is set by its REDIRECTSTREAM."""

    event: StreamEvent
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """The client wants the stream to go where it redirected it."""

    stream: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The client gives the stream up."""

    stream: int


@dataclass(frozen=True, slots=True, repr=False)
class Redirected:
    """The client wants the stream to go to `target`, once it says so."""

    stream: int
    target: Target


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Whether the client wants STREAM events."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class Left:
    """The client said good-bye."""


Effect = Attached | Closed | Redirected | Subscribed | Left


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said to the client, and what is done."""

    reply: bytes
    effect: Effect | None = None


def _refused(code: int, text: bytes) -> Verdict:
    return Verdict(b"%d %s" % (code, text))


_OK: Final = Verdict(b"250 OK")
_BLOCKED: Final = _refused(510, b"Command filtered")


def judge(line: bytes, offers: Mapping[int, Offer]) -> Verdict:
    """What becomes of a client's command, when `offers` are the streams offered to it."""
    words = [word for word in line.split(b" ") if word]
    verb = words[0].upper() if words else b""
    arguments = words[1:]
    if verb in (b"REDIRECTSTREAM", b"ATTACHSTREAM", b"CLOSESTREAM"):
        return _judge_stream(verb, arguments, offers)
    if verb == b"SETEVENTS":
        if not _EVENTS.issuperset(word.upper() for word in arguments):
            return _refused(552, b"Event filtered")
        return Verdict(b"250 OK", Subscribed(b"STREAM" in map(bytes.upper, arguments)))
    if verb == b"GETINFO":
        return _judge_info(arguments, offers)
    if verb == b"GETCONF":
        return _judge_conf(arguments)
    if verb == b"PROTOCOLINFO":
        return Verdict(
            b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="0.4.9.11"\r\n250 OK'
        )
    if verb == b"QUIT":
        return Verdict(b"250 closing connection", Left())
    return _OK if verb in (b"AUTHENTICATE", b"USEFEATURE") else _BLOCKED


def _judge_stream(verb: bytes, arguments: Sequence[bytes], offers: Mapping[int, Offer]) -> Verdict:
    """Commands about a stream: only offered ones exist."""
    if len(arguments) < 2 or not _NUMBER.fullmatch(arguments[0]):
        return _refused(512, b"Bad arguments to " + verb)
    stream = int(arguments[0])
    offer = offers.get(stream)
    if offer is None:
        return _refused(552, b'Unknown stream "%d"' % stream)
    if verb == b"CLOSESTREAM":
        return Verdict(b"250 OK", Closed(stream))
    if len(arguments) != 2:
        return _refused(512, b"Ports and hops are filtered")
    if verb == b"ATTACHSTREAM":
        if arguments[1] != b"0":
            return _refused(552, b"Circuits are filtered")
        if offer.target is None:
            return _refused(555, b"Redirect the stream first")
        return Verdict(b"250 OK", Attached(stream))
    try:
        return Verdict(b"250 OK", Redirected(stream, Target.parse(arguments[1], 0)))
    except PolicyRefusal:
        return _refused(512, b"Not a host")


def _judge_info(keys: Sequence[bytes], offers: Mapping[int, Offer]) -> Verdict:
    if len(keys) > _MAX_KEYS:
        return _refused(512, b"Too many keys")
    lines = []
    for key in keys:
        if key == b"stream-status":
            lines.append(_stream_status(offers))
        elif key in _INFO:
            lines.append(b"250-%s=%s" % (key, _INFO[key]))
        else:
            shown = key if _KEY.fullmatch(key) else b"?"
            return _refused(552, b'Unrecognized key "%s"' % shown)
    return Verdict(b"\r\n".join([*lines, b"250 OK"]))


def _stream_status(offers: Mapping[int, Offer]) -> bytes:
    events = [offer.event for offer in offers.values()]
    lines = [b"%d %s 0 %s:%d" % (e.id, e.status, e.host, e.port) for e in events]
    return b"\r\n".join([b"250+stream-status=", *lines, b"."])


def _judge_conf(keys: Sequence[bytes]) -> Verdict:
    lines = [_CONF.get(key.lower()) for key in keys]
    known = [line for line in lines if line is not None]
    if not known or len(known) != len(lines):
        return _refused(552, b"Unrecognized configuration key")
    return Verdict(b"\r\n".join([*(b"250-" + line for line in known[:-1]), b"250 " + known[-1]]))


# -- connections


class _Client(asyncio.Protocol):
    """One controller of a workstation's.

    One command is judged in each turn of the event loop, and nothing is read meanwhile: a
    flood of commands delays nobody else.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._splitter = LineSplitter()
        self._lines: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None
        self.address = b""
        self.subscribed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(ip_address(peer[0].partition("%")[0])).encode()
        if not self._desk.admit(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._desk.leave(self)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            self._lines.extend(self._splitter.feed(data))
        except ProtocolError:
            self.hang_up()
            return
        self._transport.pause_reading()
        self._judge_next()

    def _judge_next(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self._lines:
            self._transport.resume_reading()
            return
        verdict = judge(self._lines.popleft(), self._desk.offers_to(self.address))
        self.say(verdict.reply)
        self._desk.apply(self, verdict.effect)
        asyncio.get_running_loop().call_soon(self._judge_next)

    def say(self, line: bytes) -> None:
        """Write a line; a client that does not read is not waited for."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._transport.abort()
        else:
            self._transport.write(line + b"\r\n")

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass(slots=True)
class _Open:
    """An offer that waits for its answer."""

    offer: Offer
    answer: asyncio.Future[Target] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Desk:
    """Keeps the offers, by client address, and the clients that may take them."""

    def __init__(self, username: re.Pattern[bytes] | None = None) -> None:
        self._username = username
        self._clients: dict[bytes, list[_Client]] = {}
        self._open: dict[bytes, dict[int, _Open]] = {}

    def admit(self, client: _Client) -> bool:
        """Whether one more client may come in."""
        if sum(map(len, self._clients.values())) >= MAX_CLIENTS:
            return False
        if len(self._clients.get(client.address, ())) >= MAX_CLIENTS_OF_ONE:
            return False
        self._clients.setdefault(client.address, []).append(client)
        return True

    def leave(self, client: _Client) -> None:
        """A client is gone; without another from its address, so are its offers."""
        clients = self._clients.get(client.address, [])
        if client in clients:
            clients.remove(client)
        if not clients:
            self._clients.pop(client.address, None)
        if not any(other.subscribed for other in clients):
            for waiting in self._open.get(client.address, {}).values():
                _fail(waiting)

    def offers_to(self, address: bytes) -> Mapping[int, Offer]:
        return {stream: open_.offer for stream, open_ in self._open.get(address, {}).items()}

    def apply(self, client: _Client, effect: Effect | None) -> None:
        """Do what the policy decided."""
        if isinstance(effect, Left):
            client.hang_up()
        elif isinstance(effect, Subscribed):
            client.subscribed = effect.wanted
        elif effect is not None:
            waiting = self._open[client.address][effect.stream]
            if isinstance(effect, Redirected):
                waiting.offer.target = effect.target
            elif isinstance(effect, Closed):
                _fail(waiting)
            elif waiting.offer.target is not None and not waiting.answer.done():
                waiting.answer.set_result(waiting.offer.target)

    async def find(self, asked: LookUp) -> Target:
        """Let the workstation that `asked` came from find the name; raises NamingError."""
        event = asked.event
        if event is None or event.source is None or not self._may_ask(event):
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        source = event.source.strip(b"[]")
        clients = [one for one in self._clients.get(source, ()) if one.subscribed]
        offers = self._open.setdefault(source, {})
        if not clients or len(offers) >= MAX_OFFERS:
            if not offers:
                del self._open[source]
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        event = replace(event, id=_number_beside(offers))
        waiting = offers[event.id] = _Open(Offer(event))
        for client in clients:
            client.say(write_event(event, event.status))
            client.say(write_event(event, b"CONTROLLER_WAIT"))
        try:
            async with asyncio.timeout(OFFER_S):
                return await waiting.answer
        except TimeoutError:
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None
        finally:
            del offers[event.id]
            if not offers:
                self._open.pop(source, None)
            if waiting.answer.cancelled() or not waiting.answer.done():
                for client in self._clients.get(source, ()):
                    client.say(write_event(event, b"CLOSED"))

    def _may_ask(self, event: StreamEvent) -> bool:
        if self._username is None:
            return True
        return self._username.fullmatch(event.fields.username or b"") is not None


def _number_beside(offers: Mapping[int, object]) -> int:
    """A stream's number for a workstation; Tor's own would tell how many streams others have."""
    while (number := secrets.randbelow(10**15) + 1) in offers:
        pass
    return number


def _fail(waiting: _Open) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(NamingError(kind=ErrorKind.NAME_ABSENT))


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Where workstations connect, and which of their streams they may redirect."""

    controller: ControllerSettings
    listen: tuple[Endpoint, ...]
    suffixes: tuple[str, ...] = ()
    username: re.Pattern[bytes] | None = None


class Guard:
    """The guard, listening; `run` serves until cancelled."""

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._desk = Desk(settings.username)
        ours = Services(dict.fromkeys(settings.suffixes, _Nobody()))
        self._controller = Controller(settings.controller, ours.is_ours, self._desk.find)

    @property
    def first_ready(self) -> asyncio.Event:
        """Set once streams have been served."""
        return self._controller.first_ready

    @property
    def is_ready(self) -> bool:
        """Whether streams are served now."""
        return self._controller.is_ready

    async def run(self) -> None:
        """Listen and serve; raises OSError or OperationError where that cannot be."""
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            for place in self._settings.listen:
                server = await loop.create_server(
                    lambda: _Client(self._desk), place.host, place.port, reuse_address=True
                )
                stack.callback(server.close)
            await self._controller.run()


class _Nobody:
    """Stands for workstations where only the suffixes count."""

    async def resolve(self, name: str, isolation: bytes, *, wants_address: bool) -> Target:
        raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
