"""How a control connection is made: connect, and prove to Tor who we are, by stem.

Theory of operation
    stem authenticates by what Tor offers: nothing, a password, or SAFECOOKIE, which proves
    to both sides that they know the cookie.  It does so on a blocking socket, so it runs
    in a worker thread with a deadline.  Afterwards the socket belongs to the event loop
    (`control.session`); no thread stays.

Invariants
    The cookie itself is never sent, as stem would where Tor offers nothing better: a
    program that has taken Tor's port would learn it, or any other file of that size.
    stem's `Controller` is not used: it matches replies and events by what they look like,
    and takes ownership of Tor by itself.

Specification: control-spec §3.5 (AUTHENTICATE), §3.21 (PROTOCOLINFO), §3.24 (AUTHCHALLENGE).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any, Final

import stem
import stem.connection
import stem.socket

from isoproxy.errors import ErrorKind, OperationError
from isoproxy.net.endpoint import Endpoint

HANDSHAKE_S: Final = 10.0
_MAX_LINES: Final = 64
_MAX_LINE: Final = 64 * 1024

# stem logs whole control messages, and those hold host names
logging.getLogger("stem").disabled = True


async def connect(endpoint: Endpoint) -> socket.socket:
    """A connected, non-blocking socket to the control port; raises OSError."""
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, endpoint.address)
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_authenticated(endpoint: Endpoint, password: str | None = None) -> socket.socket:
    """A non-blocking socket on which Tor takes commands; raises OperationError."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            sock = await connect(endpoint)
            try:
                await _shake_hands(sock, password)
            except BaseException:
                sock.close()
                raise
    except OSError as error:
        raise OperationError(_problem(error), kind=ErrorKind.TOR_UNREACHABLE) from None
    return sock


def _problem(error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "nothing listens there; is Tor running?"
        case PermissionError():
            return "this user may not use Tor's control socket"
        case _:
            return error.strerror or "no answer"


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
        return self._file.readline(_MAX_LINE) if self._lines <= _MAX_LINES else b""

    def connect(self) -> None:
        """For stem, which would connect again after a refusal; that is for our caller to do."""
        raise stem.SocketClosed("the control port ended the handshake")

    def close(self) -> None:
        self._file.close()


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


def _authenticate(sock: socket.socket, password: str | None) -> None:
    """Blocking: prove to the control port who we are; raises OperationError."""
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
