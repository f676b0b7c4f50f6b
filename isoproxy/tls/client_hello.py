"""The first message of a TLS client, read from bytes that come as they please.

Theory of operation
    A ClientHello is a handshake message that may be spread over records.  Its fragments are
    put together, and of the message two extensions are read: which server is meant
    (server_name) and which protocols the client speaks (ALPN).  All bytes are kept, for the
    TLS library that answers them.

Invariants
    At most MAX_HELLO bytes of message are kept, and records in front of them that carry
    nothing are refused.  What is no ClientHello is refused at the first byte that says so
    of the header, else at the end of the message.  How the bytes are cut changes nothing.

Specification: RFC 8446 §4.1.2, §5.1; RFC 6066 §3 (server_name); RFC 7301 §3.1 (ALPN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isoproxy.errors import LimitExceeded, RemoteProtocolError

MAX_HELLO: Final = 1 << 14
"""Bytes of the message; those of today's browsers have about 2,000."""
_RECORD_HEADER: Final = 5
_MAX_RECORD: Final = 1 << 14
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_HOST_NAME: Final = 0


@dataclass(frozen=True, slots=True, repr=False)
class ClientHello:
    """What a client begins with.

    `server_name` is the host that it wants, in lower case, None if it does not say;
    `protocols` are the ALPN names that it offers, in its order.
    """

    server_name: str | None
    protocols: tuple[bytes, ...]


class ClientHelloReader:
    """Reads one ClientHello; `received` are all bytes that were given to it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._at = 0
        self._message = bytearray()

    def receive(self, data: bytes) -> ClientHello | None:
        """Take bytes; returns the ClientHello once it is whole, None before.

        Raises RemoteProtocolError for what is none, LimitExceeded for one that is too long.
        """
        self.received += data
        while (fragment := self._next_fragment()) is not None:
            self._message += fragment
            whole = _length(self._message)
            if whole is not None and len(self._message) >= whole:
                return _parse(bytes(self._message[4:whole]))
        return None

    def _next_fragment(self) -> bytes | None:
        """What the next record carries, None while it is not whole."""
        header = self.received[self._at : self._at + _RECORD_HEADER]
        if (header and header[0] != _HANDSHAKE) or (len(header) > 1 and header[1] != 3):
            raise RemoteProtocolError("not a TLS handshake")
        if len(header) < _RECORD_HEADER:
            return None
        size = int.from_bytes(header[3:])
        if not 0 < size <= _MAX_RECORD:
            raise RemoteProtocolError("not the length of a TLS record")
        begin = self._at + _RECORD_HEADER
        if len(self.received) < begin + size:
            return None
        self._at = begin + size
        return bytes(self.received[begin : self._at])


def _length(message: bytearray) -> int | None:
    """The length of the message with its header; None while that is not known."""
    if message[0] != _CLIENT_HELLO:
        raise RemoteProtocolError("not a ClientHello")
    if len(message) < 4:
        return None
    size = int.from_bytes(message[1:4])
    if size > MAX_HELLO:
        raise LimitExceeded("a ClientHello of such a length")
    return 4 + size


class _Reader:
    """A message from its beginning to its end; a vector that is cut off is an error."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise RemoteProtocolError("a ClientHello that is cut off")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Reader:
        """A vector whose length stands before it in `size` bytes."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)


def _parse(body: bytes) -> ClientHello:
    reader = _Reader(body)
    reader.take(2 + 32)  # legacy_version, random
    reader.vector(1)  # legacy_session_id
    reader.vector(2)  # cipher_suites
    reader.vector(1)  # legacy_compression_methods
    extensions: dict[int, _Reader] = {}
    listed = reader.vector(2) if reader else _Reader(b"")
    while listed:
        kind = listed.number(2)
        if kind in extensions:
            raise RemoteProtocolError("two extensions of one type")
        extensions[kind] = listed.vector(2)
    if reader:
        raise RemoteProtocolError("bytes after the end of a ClientHello")
    return ClientHello(
        _server_name(extensions.get(_SERVER_NAME)), _protocols(extensions.get(_ALPN))
    )


def _server_name(extension: _Reader | None) -> str | None:
    """The host; a list with anything else in it is an error: no client sends one."""
    if extension is None:
        return None
    names = extension.vector(2)
    kind, name = names.number(1), names.vector(2).rest()
    if kind != _HOST_NAME or names or extension or not (name and name.isascii()):
        raise RemoteProtocolError("not the name of a server")
    return name.decode("ascii").lower()


def _protocols(extension: _Reader | None) -> tuple[bytes, ...]:
    if extension is None:
        return ()
    listed, found = extension.vector(2), []
    while listed:
        found.append(listed.vector(1).rest())
    if extension or not all(found):
        raise RemoteProtocolError("not a list of protocols")
    return tuple(found)
