"""A control port for workstations that may bring names to their own streams, and no more.

Theory of operation
    On a gateway several workstations share one Tor.  A workstation that runs its own
    StemNS (or ours) needs REDIRECTSTREAM, and with the real control port it could send
    other workstations' streams to where it likes, choose circuits, or watch who goes
    where.  The control filter is Tor's only controller; workstations get the filter.

    Towards Tor the filter is a `Controller`: streams that are not under the configured
    suffixes are attached at once, whoever opened them.  The look-up of one that is, it
    *offers* to the client that is connected from the very address the stream came from.
    That client sees the two events it waits for, NEW and CONTROLLER_WAIT, written anew.  Its
    REDIRECTSTREAM and ATTACHSTREAM 0 are the answer to the look-up; CLOSESTREAM, or its
    disappearance, is a failure.  What a client may say is `filter_policy`.  Connections are
    taken once Tor has told how it is: clients ask that first.

Invariants
    No byte of a client reaches Tor: what Tor is told is built from a checked stream and a
    validated target.  A client learns nothing of streams that are not offered to it, not
    even how many there are: it is told numbers of the filter's own.  A stream whose origin
    is not certain is offered to no client, and closed.  A stream under a suffix is never
    attached before it was redirected away from it.  What a client sends delays no other.
    With `username` set, streams of other users are closed without being offered: a web
    page that tries a name cannot tell whether somebody here resolves such names.

Specification: control-spec §2 (the protocol's server side), §4.1.2 (STREAM).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import chain, count
from typing import Final, cast

from isoproxy.errors import ErrorKind, NamingError, ProtocolError
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.control.wire import LineSplitter, quote
from stemns_plugin.controller import Controller, ControllerSettings
from stemns_plugin.filter_policy import (
    ClientView,
    Closed,
    Effect,
    Offer,
    Quit,
    Redirected,
    Subscribed,
    judge,
)
from stemns_plugin.grammar import StreamEvent, write_stream_event
from stemns_plugin.streams import LookUp
from stemns_plugin.suffix_router import SuffixRouter

MAX_CLIENTS: Final = 64
MAX_CLIENTS_OF_ONE: Final = 16
"""Of one address, so that no workstation can keep the others out."""
MAX_OFFERS: Final = 1024
MAX_UNREAD: Final = 1024 * 1024
OFFER_S: Final = 110.0
"""Seconds for an answer: less than the 120 s after which Tor itself gives up."""
_FIRST_NUMBERS: Final = 10**15
"""How many numbers there are with which the offers to an address may begin."""


class _Client(asyncio.Protocol):
    """One controller in a workstation.

    One command is judged in each turn of the event loop, and nothing is read meanwhile: a
    flood of commands delays nobody else.
    """

    def __init__(self, broker: OfferBroker) -> None:
        self._broker = broker
        self._splitter = LineSplitter(b"\n")
        self._lines: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None
        self._offered = range(0)
        self.address = b""
        self.events: frozenset[bytes] = frozenset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(ip_address(peer[0].partition("%")[0])).encode()
        if not self._broker.admit(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.leave(self)

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
        broker = self._broker
        view = ClientView(broker.offers_to(self.address), self._offered, broker.info, broker.conf)
        decision = judge(self._lines.popleft(), view)
        self.say(decision.reply)
        self._broker.apply(self, decision.effect)
        asyncio.get_running_loop().call_soon(self._judge_next)

    def offer(self, event: StreamEvent) -> None:
        """Tell the client of a stream; it may speak of it as long as it is connected."""
        begins_anew = event.id != self._offered.stop
        self._offered = range(event.id if begins_anew else self._offered.start, event.id + 1)
        self.say(write_stream_event(event, event.status))
        self.say(write_stream_event(event, b"CONTROLLER_WAIT"))

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


class OfferBroker:
    """Keeps the offers, by client address, and the clients that may take them."""

    def __init__(self, username: re.Pattern[bytes] | None = None) -> None:
        self._username = username
        # names that Tor maps addresses to are those of all workstations: none is listed
        self.info: dict[bytes, bytes] = {b"address-mappings/all": b""}
        self.conf = {b"__leavestreamsunattached": b"__LeaveStreamsUnattached=1"}
        self._clients: dict[bytes, list[_Client]] = {}
        self._numbers: dict[bytes, Iterator[int]] = {}
        self._open: dict[bytes, dict[int, _Open]] = {}

    def admit(self, client: _Client) -> bool:
        """Whether one more client may come in."""
        if sum(map(len, self._clients.values())) >= MAX_CLIENTS:
            return False
        if len(self._clients.get(client.address, ())) >= MAX_CLIENTS_OF_ONE:
            return False
        self._clients.setdefault(client.address, []).append(client)
        self._numbers.setdefault(client.address, count(secrets.randbelow(_FIRST_NUMBERS) + 1))
        return True

    def leave(self, client: _Client) -> None:
        """A client is gone; without another from its address, so are its offers."""
        clients = self._clients.get(client.address, [])
        if client in clients:
            clients.remove(client)
        if not clients:
            self._clients.pop(client.address, None)
            self._numbers.pop(client.address, None)
        if not any(b"STREAM" in other.events for other in clients):
            for waiting in self._open.get(client.address, {}).values():
                _fail(waiting)

    def offers_to(self, address: bytes) -> Mapping[int, Offer]:
        return {stream: open_.offer for stream, open_ in self._open.get(address, {}).items()}

    def apply(self, client: _Client, effect: Effect | None) -> None:
        """Do what the policy decided."""
        if isinstance(effect, Quit):
            client.hang_up()
        elif isinstance(effect, Subscribed):
            client.events = effect.events
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
        clients = [one for one in self._clients.get(source, ()) if b"STREAM" in one.events]
        offers = self._open.setdefault(source, {})
        if not clients or len(offers) >= MAX_OFFERS:
            if not offers:
                del self._open[source]
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        # Tor's own event may name a virtual address that stands for the name
        event = replace(event, id=next(self._numbers[source]), host=asked.name.encode())
        waiting = offers[event.id] = _Open(Offer(event))
        for client in clients:
            client.offer(event)
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
                for client in clients:
                    client.say(write_stream_event(event, b"CLOSED"))

    def tell_of_tor(self, version: bytes, *, automaps: bool) -> None:
        """Answer questions about Tor with what Tor says."""
        self.info[b"version"] = version
        self.conf[b"automaphostsonresolve"] = b"AutomapHostsOnResolve=%d" % automaps

    def tell_bootstrap(self, bootstrap: Bootstrap) -> None:
        """Tell how far Tor has come, without the relay that a warning would name."""
        text = b"NOTICE BOOTSTRAP PROGRESS=%d TAG=%s SUMMARY=%s" % (
            bootstrap.percent,
            bootstrap.tag.encode(),
            quote(bootstrap.summary.encode()),
        )
        if self.info.get(b"status/bootstrap-phase") == text:
            return
        self.info[b"status/bootstrap-phase"] = text
        for client in chain.from_iterable(self._clients.values()):
            if b"STATUS_CLIENT" in client.events:
                client.say(b"650 STATUS_CLIENT " + text)

    def _may_ask(self, event: StreamEvent) -> bool:
        if self._username is None:
            return True
        return self._username.fullmatch(event.fields.username or b"") is not None


def _fail(waiting: _Open) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(NamingError(kind=ErrorKind.NAME_ABSENT))


@dataclass(frozen=True, slots=True)
class ControlFilterSettings:
    """Where workstations connect, and which of their streams they may redirect."""

    controller: ControllerSettings
    listen: tuple[Endpoint, ...]
    suffixes: tuple[str, ...] = ()
    username: re.Pattern[bytes] | None = None


class ControlFilter:
    """The control filter, listening; `run` serves until cancelled."""

    def __init__(self, settings: ControlFilterSettings) -> None:
        self._settings = settings
        self._broker = OfferBroker(settings.username)
        ours = SuffixRouter(dict.fromkeys(settings.suffixes, _NoPlugin()))
        self._controller = Controller(settings.controller, ours.is_ours, self._broker.find)
        self._controller.on_news = self._heard
        self.first_ready = asyncio.Event()
        """Set once clients can connect."""

    @property
    def is_ready(self) -> bool:
        """Whether streams are served now."""
        return self.first_ready.is_set() and self._controller.is_ready

    async def run(self) -> None:
        """Listen and serve; raises a group of OSErrors or OperationErrors where that fails."""
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            servers = []
            for place in self._settings.listen:
                server = await loop.create_server(
                    lambda: _Client(self._broker),
                    place.host,
                    place.port,
                    reuse_address=True,
                    start_serving=False,
                )
                stack.callback(server.close)
                servers.append(server)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._controller.run())
                group.create_task(self._take_clients(servers))

    async def _take_clients(self, servers: Sequence[asyncio.Server]) -> None:
        await self._controller.first_ready.wait()
        for server in servers:
            await server.start_serving()
        self.first_ready.set()

    def _heard(self) -> None:
        tor = self._controller
        self._broker.tell_of_tor(tor.version, automaps=tor.automaps)
        if tor.bootstrap is not None:
            self._broker.tell_bootstrap(tor.bootstrap)


class _NoPlugin:
    """Stands for workstations where only the suffixes count."""

    async def resolve(self, name: str, isolation: bytes) -> Target:
        raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
