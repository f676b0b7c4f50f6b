"""One authenticated connection to Tor's control port, for requests, listings or events.

Theory of operation
    Tor writes host names as it was given them into STREAM events and into the answer to
    `GETINFO stream-status`, line breaks included.  So a client of a SocksPort or DNSPort
    can write whole lines into the connection of every controller that asks for those:
    forged events, and forged replies.  The remedy is to keep what can be forged apart from
    what cannot, by connection; what a session is used for decides how its lines are read:

    requests  replies are matched to commands by their order.  A session for commands about
              streams subscribes to no event; `on_event` is for sessions whose events hold
              no text of clients' that Tor has not quoted (CIRC, SIGNAL, STATUS_CLIENT)
    listing   everything up to the end is the answer.  Each question is followed by a second
              one, about a key that is a random number; Tor's refusal of it names the
              number, and ends the answer.  What is forged inside cannot contain the number
    events    every line from `subscribe` on goes to a callback, as a hint.  The refusal of
              a random key tells that what was written before has been read (`caught_up`)

Invariants
    A session serves one of the three uses.  Requests may be many at a time, listings are
    one at a time.  A request that was cancelled keeps its place: its reply is dropped, and
    cannot be mistaken for the next one's.  So is a reply to which there is no request.
    Where no events are expected, an event ends the connection.  A Tor that is silent for
    `REPLY_S` ends the connection.  When it ends, everything that waits fails at once.

Specification: control-spec §2.3 (replies), §3.4 (SETEVENTS), §3.9 (GETINFO).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeVar, cast

from isoproxy.errors import (
    ErrorKind,
    LimitExceeded,
    OperationError,
    ProtocolError,
    RemoteProtocolError,
)
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.authentication import connect_authenticated
from isoproxy.tor.control.wire import EVENT, ControlReply, LineSplitter, ReplyAssembler, command

REPLY_S: Final = 30.0
MAX_LISTING: Final = 32 * 1024 * 1024
"""Bytes of one listing: several hundred thousand streams."""

_T = TypeVar("_T")


class _Use(Enum):
    REQUESTS = auto()
    LISTINGS = auto()
    EVENTS = auto()


def not_connected() -> OperationError:
    return OperationError(
        "Tor's control port is not connected; start Tor, and see that the configuration names "
        "its control port",
        kind=ErrorKind.TOR_UNREACHABLE,
    )


def _mark() -> tuple[str, bytes]:
    """A key that nobody can guess, and the line by which Tor refuses to tell it."""
    key = secrets.token_hex(16)
    return key, b'552 Unrecognized key "%s"' % key.encode()


class ControlSession(asyncio.Protocol):
    """An authenticated connection; make it with `open`."""

    def __init__(self, on_event: Callable[[ControlReply], None] | None) -> None:
        self._on_event = on_event
        self._transport: asyncio.Transport | None = None
        self._splitter = LineSplitter()
        self._assembler = ReplyAssembler()
        self._use = _Use.REQUESTS
        self._replies: deque[asyncio.Future[ControlReply]] = deque()
        self._end_of_listing = b""
        self._listing: list[bytes] = []
        self._listing_size = 0
        self._listed: asyncio.Future[list[bytes]] | None = None
        self._answered: asyncio.Future[bytes] | None = None
        self._end_of_events = b""
        self._caught_up: asyncio.Future[None] | None = None
        self._on_line: Callable[[bytes], None] = lambda line: None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection has ended."""

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        password: str | None = None,
        on_event: Callable[[ControlReply], None] | None = None,
    ) -> ControlSession:
        """A connected and authenticated session; raises OperationError."""
        sock = await connect_authenticated(endpoint, password)
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: cls(on_event), sock=sock)
        except BaseException:
            sock.close()
            raise
        return made

    # -- requests

    @property
    def pending(self) -> int:
        """Requests that wait for their replies."""
        return len(self._replies)

    def send(self, line: bytes) -> asyncio.Future[ControlReply]:
        """Send one command; its reply is the future's result.  Raises OperationError."""
        if self._use is not _Use.REQUESTS or self._transport is None or self.closed.done():
            raise not_connected()
        reply: asyncio.Future[ControlReply] = asyncio.get_running_loop().create_future()
        self._replies.append(reply)
        self._transport.write(line)
        return reply

    async def request(self, line: bytes) -> ControlReply:
        """Send one command and wait for its reply; raises OperationError."""
        return await self._in_time(self.send(line))

    # -- listings

    async def listing(self, *keys: str) -> list[bytes]:
        """The lines of the answer to `GETINFO keys`, as they came; raises OperationError."""
        if self._replies or self._listed is not None or self.closed.done():
            raise not_connected()
        assert self._transport is not None
        self._use = _Use.LISTINGS
        key, self._end_of_listing = _mark()
        self._listing, self._listing_size = [], 0
        self._listed = asyncio.get_running_loop().create_future()
        self._transport.write(command("GETINFO", *keys) + command("GETINFO", key))
        try:
            return await self._in_time(self._listed)
        finally:
            self._listed = None

    # -- events

    async def subscribe(self, *events: str, on_line: Callable[[bytes], None]) -> None:
        """Give each line from here on to `on_line`, the reply to SETEVENTS among them.

        Raises OperationError if Tor refuses, as far as can be told.
        """
        assert self._transport is not None
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answered = answered

        def first(line: bytes) -> None:
            if not line.startswith(b"650") and not answered.done():
                answered.set_result(line)
            else:
                on_line(line)

        self._use, self._on_line = _Use.EVENTS, first
        self._transport.write(command("SETEVENTS", *events))
        if not (await self._in_time(answered)).startswith(b"250"):
            raise OperationError("Tor's control port does not let events be followed")
        self._on_line = on_line

    async def caught_up(self) -> None:
        """Until `on_line` has had every event of before this call; raises OperationError."""
        if self._use is not _Use.EVENTS or self.closed.done():
            raise not_connected()
        assert self._transport is not None
        key, self._end_of_events = _mark()
        self._caught_up = asyncio.get_running_loop().create_future()
        self._transport.write(command("GETINFO", key))
        self._acknowledge()
        await self._in_time(self._caught_up)

    def _acknowledge(self) -> None:
        """Let Tor's kernel send on at once: it waits until what it sent is acknowledged."""
        assert self._transport is not None
        sock: socket.socket = self._transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # -- the end

    async def _in_time(self, future: asyncio.Future[_T]) -> _T:
        """The result of `future`; silence, or the end of the connection, is an error."""
        try:
            async with asyncio.timeout(REPLY_S):
                return await future
        except TimeoutError:
            self.close()
            raise OperationError(
                "Tor did not answer at its control port; isoproxy connects to it anew",
                kind=ErrorKind.TOR_UNREACHABLE,
            ) from None

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for line in self._splitter.feed(data):
                self._take(line)
        except ProtocolError:
            self.close()

    def _take(self, line: bytes) -> None:
        if self._use is _Use.EVENTS:
            self._take_event(line)
        elif self._use is _Use.LISTINGS:
            self._take_listed(line)
        elif (reply := self._assembler.feed(line)) is not None:
            self._take_reply(reply)

    def _take_reply(self, reply: ControlReply) -> None:
        if reply.code == EVENT:
            if self._on_event is None:
                raise RemoteProtocolError("the control port sent an event that was not asked for")
            self._on_event(reply)
        elif self._replies and not (waiting := self._replies.popleft()).done():
            waiting.set_result(reply)

    def _take_event(self, line: bytes) -> None:
        waiting = self._caught_up
        if line == self._end_of_events and waiting is not None and not waiting.done():
            waiting.set_result(None)
        else:
            self._on_line(line)

    def _take_listed(self, line: bytes) -> None:
        if self._listed is None or self._listed.done():
            return
        if line == self._end_of_listing:
            self._listed.set_result(self._listing)
            return
        self._listing_size += len(line)
        if self._listing_size > MAX_LISTING:
            raise LimitExceeded("Tor's control port lists more streams than there can be")
        self._listing.append(line)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (*self._replies, self._listed, self._answered, self._caught_up):
            if future is not None and not future.done():
                future.set_exception(not_connected())
        self._replies.clear()
        if not self.closed.done():
            self.closed.set_result(None)
