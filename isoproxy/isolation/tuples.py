"""The isolation tuple of a stream, and which of its fields a listener's rule selects.

Invariants
    Fields are raw bytes.  Absent, empty and every byte value differ, and framing cannot
    collide: two streams have one encoding exactly when all selected fields are equal.

The fields are those of tor(1), SocksPort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isoproxy.isolation.flags import DEFAULT_ISOLATION, ClientProtocol, Isolate


@dataclass(frozen=True, slots=True)
class ListenerRule:
    """What one listener contributes: its session group and its flags."""

    group: bytes
    isolate: Isolate = DEFAULT_ISOLATION


def shared_group(number: int) -> bytes:
    """The session group `SessionGroup=number`, common to all listeners that name it."""
    return b"shared %d" % number


def own_group(listener: str) -> bytes:
    """The session group of a listener that names none: its own."""
    return b"own " + listener.encode()


@dataclass(frozen=True, slots=True, repr=False)
class IsolationTuple:
    """All that may separate a stream from others; the listener's flags choose from it.

    `client` comes from `client_of_address` or `client_of_uid`.  `username` and
    `password` are the raw bytes the client sent, None where it sent none.  `dest_host`
    is the host asked for, before any resolution.
    """

    client: bytes | None
    protocol: ClientProtocol
    username: bytes | None = None
    password: bytes | None = None
    dest_host: bytes = b""
    dest_port: int = 0

    def __repr__(self) -> str:
        return f"<IsolationTuple {self.protocol.name}>"


def canonical_fields(rule: ListenerRule, stream: IsolationTuple) -> list[tuple[str, bytes | None]]:
    """The fields of `stream` that `rule` selects, in their fixed order, with their names."""
    fields: list[tuple[str, bytes | None]] = [("session group", rule.group)]
    selected = rule.isolate
    if Isolate.CLIENT_ADDR in selected:
        fields.append(("client address", stream.client))
    if Isolate.CLIENT_PROTOCOL in selected:
        fields.append(("client protocol", stream.protocol.value))
    if Isolate.SOCKS_AUTH in selected:
        fields.append(("user name", stream.username))
        fields.append(("password", stream.password))
    if Isolate.DEST_ADDR in selected:
        fields.append(("destination address", stream.dest_host.lower()))
    if Isolate.DEST_PORT in selected:
        fields.append(("destination port", b"%d" % stream.dest_port))
    return fields


def encode(rule: ListenerRule, stream: IsolationTuple) -> bytes:
    """The flags, then each selected field as a presence byte, a length and its bytes.

    The same fields as `canonical_fields` (a property test holds it); this runs for every
    stream, that one for `isoproxy explain`.
    """
    selected = rule.isolate.value
    fields: list[bytes | None] = [rule.group]
    if selected & _CLIENT_ADDR:
        fields.append(stream.client)
    if selected & _CLIENT_PROTOCOL:
        fields.append(stream.protocol.value)
    if selected & _SOCKS_AUTH:
        fields.append(stream.username)
        fields.append(stream.password)
    if selected & _DEST_ADDR:
        fields.append(stream.dest_host.lower())
    if selected & _DEST_PORT:
        fields.append(b"%d" % stream.dest_port)
    encoded = [
        b"\x00" if value is None else b"\x01" + len(value).to_bytes(4) + value for value in fields
    ]
    return b"%c" % selected + b"".join(encoded)


_CLIENT_ADDR: Final = Isolate.CLIENT_ADDR.value
_SOCKS_AUTH: Final = Isolate.SOCKS_AUTH.value
_CLIENT_PROTOCOL: Final = Isolate.CLIENT_PROTOCOL.value
_DEST_ADDR: Final = Isolate.DEST_ADDR.value
_DEST_PORT: Final = Isolate.DEST_PORT.value
