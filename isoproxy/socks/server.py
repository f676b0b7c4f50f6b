"""The listener's side: what a client sends, up to its one request.

Specification: RFC 1928 §3-6, RFC 1929 §2, SOCKS4a, Tor's socks-extensions.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.errors import (
    ErrorKind,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    socks_reply_code,
)
from isoproxy.socks.server_states import SERVER_TRANSITIONS, ServerEvent, ServerState
from isoproxy.socks.wire import (
    AUTH_VERSION,
    MAX_SOCKS4_FIELD,
    NO_ACCEPTABLE_METHODS,
    NO_AUTH,
    UNSPECIFIED,
    USERNAME_PASSWORD,
    VERSION4,
    VERSION5,
    Address,
    Command,
    Request,
    Version,
    address_length,
    decode_host,
    encode_reply,
)

MAX_LEFTOVER: Final = 1 << 16
"""Bytes of optimistic data kept; a caller stops reading once there is a request."""

_SUPPORTED: Final = {
    int(command): command for command in (Command.CONNECT, Command.RESOLVE, Command.RESOLVE_PTR)
}
_SUPPORTED_BY_SOCKS4: Final = {
    int(command): command for command in (Command.CONNECT, Command.RESOLVE)
}

_OK5: Final = encode_reply(0)
_OK4: Final = b"\x00\x5a" + bytes(6)


class Server:
    """Our side of one client's handshake.

    require_auth      refuse clients that send no user name and password
    extended_errors   answer failures with Tor's F0-F7 where they say more
    unix              the listener is a unix socket: replies name `::`, as Tor's do
    accepts_username  a policy's veto on user names (proposal 351)

    Call `receive`, write `data_to_send()`, and once there is a request answer it with
    exactly one of `succeed`, `resolved`, `resolved_name`, `refuse`.
    """

    __slots__ = (
        "_accepts_username",
        "_buffer",
        "_extended_errors",
        "_out",
        "_password",
        "_require_auth",
        "_state",
        "_unix",
        "_username",
        "_version",
    )

    def __init__(
        self,
        *,
        require_auth: bool = False,
        extended_errors: bool = False,
        unix: bool = False,
        accepts_username: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._require_auth = require_auth
        self._extended_errors = extended_errors
        self._unix = unix
        self._accepts_username = accepts_username
        self._buffer = b""
        self._out = b""
        self._state = ServerState.VERSION
        self._version = Version.SOCKS5
        self._username: bytes | None = None
        self._password: bytes | None = None

    @property
    def state(self) -> ServerState:
        """What the client is expected to send next."""
        return self._state

    @property
    def leftover(self) -> bytes:
        """Bytes behind the request: the application's own, to be forwarded first."""
        return self._buffer if self._state is ServerState.REQUESTED else b""

    def data_to_send(self) -> bytes:
        """What must be written now, in one write; empties the queue."""
        out, self._out = self._out, b""
        return out

    def receive(self, data: bytes) -> Request | None:
        """Take bytes from the client; returns the request once it is complete.

        Raises RemoteProtocolError when the client must be refused: its `reply` holds all
        that is still to be written before the connection closes.
        """
        if self._state is ServerState.CLOSED:
            raise LocalProtocolError("the handshake has failed already")
        self._buffer = self._buffer + data if self._buffer else bytes(data)
        if self._state is ServerState.REQUESTED:
            if len(self._buffer) > MAX_LEFTOVER:
                raise LimitExceeded(reply=self.refuse(ErrorKind.TOO_LONG))
            return None
        try:
            return self._advance()
        except RemoteProtocolError as error:
            self._enter(ServerEvent.REFUSED)
            error.reply = self.data_to_send() + error.reply
            raise

    def succeed(self) -> bytes:
        """The reply to a CONNECT whose stream is open."""
        self._expect_request()
        if self._version is Version.SOCKS4:
            return _OK4
        return encode_reply(0, IPv6Address(0)) if self._unix else _OK5

    def resolved(self, address: Address) -> bytes:
        """The reply to a RESOLVE."""
        self._expect_request()
        if self._version is Version.SOCKS5:
            return encode_reply(0, address)
        if isinstance(address, IPv6Address):
            return self.refuse(ErrorKind.HOST_UNREACHABLE)
        return b"\x00\x5a\x00\x00" + address.packed

    def resolved_name(self, name: bytes) -> bytes:
        """The reply to a RESOLVE_PTR."""
        self._expect_request()
        return encode_reply(0, name)

    def refuse(self, kind: ErrorKind) -> bytes:
        """What tells the client that there will be no stream, and why, where that can be said.

        Before there is a request it is in the words of the message that is outstanding.
        """
        if self._state is ServerState.VERSION:
            return bytes((VERSION5, NO_ACCEPTABLE_METHODS))
        if self._state is ServerState.AUTHENTICATION:
            return bytes((AUTH_VERSION, 1))
        if self._version is Version.SOCKS4:
            return b"\x00\x5b" + bytes(6)
        code = socks_reply_code(kind, extended=self._extended_errors)
        return encode_reply(code, IPv6Address(0) if self._unix else UNSPECIFIED)

    def _enter(self, event: ServerEvent) -> None:
        self._state = SERVER_TRANSITIONS[self._state][event]

    def _expect_request(self) -> None:
        if self._state is not ServerState.REQUESTED:
            raise LocalProtocolError("there is no request to answer")

    def _advance(self) -> Request | None:
        if self._state is ServerState.VERSION and self._buffer:
            if self._buffer[0] == VERSION5:
                self._choose_method()
            elif self._buffer[0] == VERSION4:
                self._version = Version.SOCKS4
                self._enter(ServerEvent.SPOKE_SOCKS4)
            else:
                raise RemoteProtocolError(reply=bytes((VERSION5, NO_ACCEPTABLE_METHODS)))
        if self._state is ServerState.SOCKS4:
            return self._parse_socks4()
        if self._state is ServerState.REQUEST and self._authenticates_unasked():
            self._enter(ServerEvent.SENT_UNASKED)
        if self._state is ServerState.AUTHENTICATION:
            self._authenticate()
        if self._state is ServerState.REQUEST:
            return self._parse_request()
        return None

    def _choose_method(self) -> None:
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return
        end = 2 + buffer[1]
        methods = buffer[2:end]
        self._buffer = buffer[end:]
        if USERNAME_PASSWORD in methods:
            method, event = USERNAME_PASSWORD, ServerEvent.OFFERED_CREDENTIALS
        elif NO_AUTH in methods and not self._require_auth:
            method, event = NO_AUTH, ServerEvent.OFFERED_NO_AUTH
        else:
            raise RemoteProtocolError(
                kind=ErrorKind.AUTH_REQUIRED, reply=bytes((VERSION5, NO_ACCEPTABLE_METHODS))
            )
        self._enter(event)
        self._out += bytes((VERSION5, method))

    def _authenticates_unasked(self) -> bool:
        """Tor, too, takes credentials that it did not ask for; here never a second time."""
        return self._username is None and self._buffer[:1] == b"\x01"

    def _authenticate(self) -> None:
        """RFC 1929; lengths of zero are accepted, as Tor accepts them."""
        buffer = self._buffer
        if not buffer:
            return
        if buffer[0] != AUTH_VERSION:
            raise RemoteProtocolError(reply=bytes((AUTH_VERSION, 1)))
        if len(buffer) < 2:
            return
        username_end = 2 + buffer[1]
        if len(buffer) <= username_end:
            return
        end = username_end + 1 + buffer[username_end]
        if len(buffer) < end:
            return
        username, password = buffer[2:username_end], buffer[username_end + 1 : end]
        self._buffer = buffer[end:]
        if self._accepts_username is not None and not self._accepts_username(username):
            raise RemoteProtocolError(
                kind=ErrorKind.RESERVED_USERNAME, reply=bytes((AUTH_VERSION, 1))
            )
        self._username, self._password = username, password
        self._enter(ServerEvent.AUTHENTICATED)
        self._out += bytes((AUTH_VERSION, 0))

    def _parse_request(self) -> Request | None:
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[0] != VERSION5:
            raise RemoteProtocolError(reply=self.refuse(ErrorKind.MALFORMED))
        if len(buffer) < 5:
            return None
        length = address_length(buffer[3], buffer[4])
        if length is None:
            kind = ErrorKind.ADDRESS_TYPE_NOT_SUPPORTED
            raise RemoteProtocolError(kind=kind, reply=self.refuse(kind))
        end = 4 + length + 2
        if len(buffer) < end:
            return None
        command = _SUPPORTED.get(buffer[1])
        if command is None:
            raise RemoteProtocolError(
                kind=ErrorKind.COMMAND_NOT_SUPPORTED,
                reply=self.refuse(ErrorKind.COMMAND_NOT_SUPPORTED),
            )
        host = decode_host(buffer[3], buffer[4 : end - 2])
        port = int.from_bytes(buffer[end - 2 : end], "big")
        if command is Command.CONNECT and port == 0:
            raise RemoteProtocolError(reply=self.refuse(ErrorKind.MALFORMED))
        self._buffer = buffer[end:]
        self._enter(ServerEvent.REQUESTED)
        return Request(Version.SOCKS5, command, host, port, self._username, self._password)

    def _parse_socks4(self) -> Request | None:
        buffer = self._buffer
        if len(buffer) < 9:
            return None
        username, rest = self._socks4_field(8)
        if username is None:
            return None
        address = buffer[4:8]
        if address[:3] == b"\x00\x00\x00":
            host, rest = self._socks4_field(rest)
            if host is None:
                return None
        else:
            host = str(IPv4Address(address)).encode()
        command = _SUPPORTED_BY_SOCKS4.get(buffer[1])
        port = int.from_bytes(buffer[2:4], "big")
        if command is None or not host or (command is Command.CONNECT and port == 0):
            kind = ErrorKind.COMMAND_NOT_SUPPORTED if command is None else ErrorKind.MALFORMED
            raise RemoteProtocolError(kind=kind, reply=self.refuse(kind))
        if self._require_auth and not username:
            raise RemoteProtocolError(
                kind=ErrorKind.AUTH_REQUIRED, reply=self.refuse(ErrorKind.AUTH_REQUIRED)
            )
        self._buffer = buffer[rest:]
        self._enter(ServerEvent.REQUESTED)
        return Request(Version.SOCKS4, command, host, port, username)

    def _socks4_field(self, start: int) -> tuple[bytes | None, int]:
        """A field that ends in NUL, and where the next begins; None while incomplete."""
        end = self._buffer.find(b"\x00", start, start + MAX_SOCKS4_FIELD + 1)
        if end >= 0:
            return self._buffer[start:end], end + 1
        if len(self._buffer) > start + MAX_SOCKS4_FIELD:
            raise LimitExceeded(reply=self.refuse(ErrorKind.TOO_LONG))
        return None, start
