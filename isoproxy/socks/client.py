"""Our side towards Tor's SocksPort, or Arti's.

Specification: RFC 1928 §3-6, RFC 1929 §2, Tor's socks-extensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.errors import (
    ErrorKind,
    LocalProtocolError,
    RemoteProtocolError,
    kind_of_socks_reply,
)
from isoproxy.socks.wire import (
    AUTH_VERSION,
    USERNAME_PASSWORD,
    VERSION5,
    Address,
    AddressType,
    Command,
    address_length,
    encode_address,
)

_SHORTEST_REPLY: Final = 8
"""Bytes: version, code, reserved, ATYP 3, length, one byte of name, port."""


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """Tor's answer, as RFC 1928 §6 has it: the type of the address and its bytes."""

    address_type: int
    body: bytes

    @property
    def host(self) -> Address | bytes:
        """The bound or resolved address, or a name after RESOLVE_PTR."""
        if self.address_type == AddressType.NAME:
            return self.body[1:]
        return IPv4Address(self.body) if len(self.body) == 4 else IPv6Address(self.body)


class _ClientState(Enum):
    METHOD = 0
    AUTHENTICATION = 1
    REPLY = 2
    DONE = 3
    FAILED = 4


class Client:
    """Our side of one handshake with Tor's SocksPort.

    username, password   the isolation credentials; there is no way to go without
    optimistic_data      application bytes that go out with the request

    Write `data_to_send()` at once and after each `receive`.  When `receive` has returned
    the reply, `leftover` holds the first bytes from the far end.
    """

    __slots__ = ("_after_method", "_buffer", "_out", "_state")

    def __init__(
        self,
        command: Command,
        host: Address | bytes | str,
        port: int,
        *,
        username: bytes,
        password: bytes,
        optimistic_data: bytes = b"",
    ) -> None:
        if len(username) > 255 or len(password) > 255:
            raise LocalProtocolError("SOCKS5 credentials have at most 255 bytes each")
        self._after_method = b"".join(
            (
                bytes((AUTH_VERSION, len(username))),
                username,
                bytes((len(password),)),
                password,
                bytes((VERSION5, command, 0)),
                encode_address(host, port),
                optimistic_data,
            )
        )
        self._buffer = b""
        self._out = bytes((VERSION5, 1, USERNAME_PASSWORD))
        self._state = _ClientState.METHOD

    @property
    def leftover(self) -> bytes:
        return self._buffer if self._state is _ClientState.DONE else b""

    @property
    def wanted(self) -> int:
        """Bytes that may be read without taking any of the far end's; 0 once it is over."""
        have = len(self._buffer)
        if self._state is _ClientState.METHOD:
            return 2 - have
        if self._state is _ClientState.AUTHENTICATION:
            return 2 + _SHORTEST_REPLY - have
        if self._state is not _ClientState.REPLY:
            return 0
        if have < 5:
            return _SHORTEST_REPLY - have
        length = address_length(self._buffer[3], self._buffer[4])
        return 4 + (length or 0) + 2 - have

    @property
    def step(self) -> str:
        """What is being waited for, in words for an error: "greeting", "connect" ..."""
        return {
            _ClientState.METHOD: "greeting",
            _ClientState.AUTHENTICATION: "authentication",
            _ClientState.REPLY: "connect",
        }.get(self._state, "nothing")

    def data_to_send(self) -> bytes:
        """What must be written now; empties the queue."""
        out, self._out = self._out, b""
        return out

    def receive(self, data: bytes) -> Reply | None:
        """Take bytes from Tor; returns the reply of a stream that is open.

        Raises RemoteProtocolError whose `kind` says what Tor answered, or TOR_PROTOCOL
        when it is not SOCKS5 that is spoken there.
        """
        if self._state in (_ClientState.DONE, _ClientState.FAILED):
            raise LocalProtocolError("the handshake is over")
        self._buffer = self._buffer + data if self._buffer else bytes(data)
        try:
            if self._state is _ClientState.METHOD:
                self._read_method()
            if self._state is _ClientState.AUTHENTICATION:
                self._read_authentication()
            return self._read_reply() if self._state is _ClientState.REPLY else None
        except RemoteProtocolError:
            self._state = _ClientState.FAILED
            raise

    def _read_method(self) -> None:
        if len(self._buffer) < 2:
            return
        if self._buffer[:2] != bytes((VERSION5, USERNAME_PASSWORD)):
            raise RemoteProtocolError(kind=ErrorKind.TOR_PROTOCOL)
        self._buffer = self._buffer[2:]
        self._out, self._after_method = self._after_method, b""
        self._state = _ClientState.AUTHENTICATION

    def _read_authentication(self) -> None:
        if len(self._buffer) < 2:
            return
        if self._buffer[:2] != bytes((AUTH_VERSION, 0)):
            raise RemoteProtocolError(kind=ErrorKind.TOR_PROTOCOL)
        self._buffer = self._buffer[2:]
        self._state = _ClientState.REPLY

    def _read_reply(self) -> Reply | None:
        buffer = self._buffer
        if len(buffer) < 5:
            return None
        if buffer[0] != VERSION5:
            raise RemoteProtocolError(kind=ErrorKind.TOR_PROTOCOL)
        if buffer[1] != 0:
            raise RemoteProtocolError(kind=kind_of_socks_reply(buffer[1]))
        length = address_length(buffer[3], buffer[4])
        if length is None:
            raise RemoteProtocolError(kind=ErrorKind.TOR_PROTOCOL)
        end = 4 + length + 2
        if len(buffer) < end:
            return None
        body = buffer[4 : end - 2]
        self._buffer = buffer[end:]
        self._state = _ClientState.DONE
        return Reply(buffer[3], body)
