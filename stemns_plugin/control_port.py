"""One authenticated connection to Tor's control port, for requests, listings or events.

Theory of operation
    `ControlConnection.open` connects and authenticates.  What is done with it afterwards
    decides how its lines are read (`stemns_plugin.wire` says why):

        request    replies are matched to commands by their order
        listing    everything up to the refusal of a random key is the answer
        subscribe  from here on every line goes to a callback; `caught_up` asks for the
                   refusal of a random key, before which all older events have come

    Written on a socket of our own instead of stem: stem matches replies and events by
    what they look like, on one connection, in threads; the point here is that what a line
    looks like proves nothing.

Invariants
    One connection serves one of the three uses.  Requests may be many at a time; listings
    are one at a time.  When the connection ends, everything that waits fails at once.
    A control port that is silent for `REPLY_S` ends the connection.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeVar, cast

from isoproxy.errors import ErrorKind, LimitExceeded, OperationError, ProtocolError
from isoproxy.net.endpoint import Endpoint
from stemns_plugin.wire import (
    COOKIE_LENGTH,
    LineSplitter,
    Methods,
    Reply,
    ReplyAssembler,
    SafeCookie,
    command,
    parse_methods,
    password_command,
)

REPLY_S: Final = 30.0
MAX_LISTING: Final = 32 * 1024 * 1024
"""Bytes of one listing: several hundred thousand streams."""


_T = TypeVar("_T")


class _Use(Enum):
    REQUESTS = auto()
    LISTINGS = auto()
    EVENTS = auto()


def _gone() -> OperationError:
    return OperationError(
        "Tor's control port is not connected; start Tor or wait until it is back",
        kind=ErrorKind.TOR_UNREACHABLE,
    )


def _mark() -> tuple[str, bytes]:
    """A key that nobody can guess, and the line by which Tor refuses to tell it."""
    key = secrets.token_hex(16)
    return key, b'552 Unrecognized key "%s"' % key.encode()


class ControlConnection(asyncio.Protocol):
    """An authenticated connection; make it with `open`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._splitter = LineSplitter()
        self._assembler = ReplyAssembler()
        self._use = _Use.REQUESTS
        self._replies: deque[asyncio.Future[Reply]] = deque()
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
    async def open(cls, endpoint: Endpoint, password: str | None = None) -> ControlConnection:
        """A connected and authenticated connection; raises OperationError."""
        loop = asyncio.get_running_loop()
        try:
            if endpoint.path is not None:
                _, made = await loop.create_unix_connection(cls, endpoint.path)
            else:
                host = endpoint.host or ""
                _, made = await loop.create_connection(cls, host, endpoint.port)
        except OSError as error:
            raise OperationError(
                f"Tor's control port cannot be reached: {os.strerror(error.errno or 0)}; start "
                "Tor, and see that its torrc has the ControlPort or ControlSocket given here",
                kind=ErrorKind.TOR_UNREACHABLE,
            ) from None
        try:
            await made._authenticate(password)
        except BaseException:
            made.close()
            raise
        return made

    async def _authenticate(self, password: str | None) -> None:
        try:
            methods = parse_methods(await self.request(command("PROTOCOLINFO", "1")))
            if password is not None and b"HASHEDPASSWORD" in methods.names:
                line = password_command(password)
            elif b"NULL" in methods.names:
                line = command("AUTHENTICATE")
            else:
                line = await self._by_cookie(methods)
            reply = await self.request(line)
        except (ProtocolError, ValueError) as error:
            raise OperationError(str(error), kind=ErrorKind.TOR_UNREACHABLE) from None
        if not reply.is_ok:
            raise OperationError(
                "Tor's control port refused the password or the cookie; set the password that "
                "Tor was given, or let this user read Tor's cookie"
            )

    async def _by_cookie(self, methods: Methods) -> bytes:
        """The AUTHENTICATE command that Tor's cookie gives.

        The cookie itself is never sent: whoever took Tor's port could name any file as one.
        """
        if methods.cookie_file is None or b"SAFECOOKIE" not in methods.names:
            raise OperationError(
                "Tor's control port wants a password; set tor.control_password, or write "
                "CookieAuthentication 1 into Tor's torrc"
            )
        try:
            with open(methods.cookie_file, "rb") as file:  # noqa: ASYNC230  # 32 bytes
                cookie = file.read(COOKIE_LENGTH + 1)
        except OSError:
            raise OperationError(
                "Tor's control cookie cannot be read; add this user to the group of the cookie "
                "file (debian-tor on Debian) and set CookieAuthFileGroupReadable 1"
            ) from None
        if len(cookie) != COOKIE_LENGTH:
            raise OperationError("the file that Tor names as its control cookie is none")
        proof = SafeCookie(cookie, secrets.token_bytes(32))
        return proof.answer(await self.request(proof.challenge()))

    # -- the three uses

    def send(self, line: bytes) -> asyncio.Future[Reply]:
        """Send one command; its reply is the future's result.  Raises OperationError."""
        if self._use is not _Use.REQUESTS or self._transport is None or self.closed.done():
            raise _gone()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies.append(reply)
        self._transport.write(line)
        return reply

    async def request(self, line: bytes) -> Reply:
        """Send one command and wait for its reply; raises OperationError."""
        return await self._in_time(self.send(line))

    async def listing(self, *keys: str) -> list[bytes]:
        """The lines of the answer to `GETINFO keys`, as they came; raises OperationError."""
        if self._replies or self._listed is not None or self.closed.done():
            raise _gone()
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
            raise _gone()
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

    async def _in_time(self, future: asyncio.Future[_T]) -> _T:
        """The result of `future`; silence, or the end of the connection, is an error."""
        try:
            async with asyncio.timeout(REPLY_S):
                return await future
        except TimeoutError:
            self.close()
            raise _gone() from None

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
        elif (reply := self._assembler.feed(line)) is not None and self._replies:
            waiting = self._replies.popleft()
            if not waiting.done():
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
                future.set_exception(_gone())
        self._replies.clear()
        if not self.closed.done():
            self.closed.set_result(None)
