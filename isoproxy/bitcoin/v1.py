"""Bitcoin's v1 transport: framing, reading and rewriting VERSION.

Specification: Bitcoin's protocol documentation, "Message structure" and "version"; what a
node does with broken messages is Bitcoin Core's `net.cpp` (`V1Transport`).

Theory of operation
    A message is a header of 24 bytes (magic 4, type 12, payload length LE32, first four
    bytes of the payload's double SHA-256) and its payload.  `V1Receiver` finds whole
    messages in the bytes received, in place.  As in Bitcoin Core, a wrong magic or a
    length beyond the network's limit ends the connection; a wrong checksum or an
    unprintable type costs that message alone.

    VERSION (offsets in bytes): 0 version i32, 4 services u64, 12 time i64, 20 addr_recv
    (services u64, IPv6 16 bytes, port big-endian u16), 46 addr_from alike, 72 nonce u64,
    80 user agent (compact size, at most 256 bytes), then start height i32 and relay u8,
    the last fields absent in old versions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.messages import KNOWN_TYPES, TYPE_LENGTH, Network, is_type, padded
from isoproxy.errors import LimitExceeded, RemoteProtocolError

HEADER_LENGTH: Final = 24
HEADER: Final = struct.Struct("<4s12sI4s")
VERSION: Final = padded("version")
PREFIX_LENGTH: Final = 4 + TYPE_LENGTH
"""Bytes that tell a v1 connection: magic and the type of its first message."""
SERVICE_P2P_V2: Final = 1 << 11
MAX_USER_AGENT: Final = 256

_ADDRESSES: Final = slice(20, 72)
_USER_AGENT: Final = 80


def checksum(payload: bytes | memoryview) -> bytes:
    """The first four bytes of the double SHA-256 of `payload`."""
    return sha256(sha256(payload).digest()).digest()[:4]


def encode(network: Network, kind: bytes, payload: bytes) -> bytes:
    """One whole message; `kind` is the padded type."""
    return HEADER.pack(network.magic, kind, len(payload), checksum(payload)) + payload


class V1Receiver:
    """Whole v1 messages out of the bytes in `queue`.

    `corrupt` counts messages dropped for a wrong checksum, `untyped` those dropped for a
    type that is not printable.
    """

    __slots__ = ("_limit", "_magic", "corrupt", "queue", "untyped")

    def __init__(self, network: Network) -> None:
        self.queue = ByteQueue()
        self.corrupt = 0
        self.untyped = 0
        self._magic = network.magic
        self._limit = network.max_contents - 1 - TYPE_LENGTH  # what v2 can carry too

    def next_message(self) -> tuple[bytes, int, int] | None:
        """Take the next message off the queue; None if none is complete.

        Returns the padded type and where in `queue.data` the message (header included)
        begins and ends; the bytes stay there until the queue is given new ones.  Raises
        RemoteProtocolError for a foreign magic and LimitExceeded for a length beyond the
        network's.
        """
        queue = self.queue
        while (queued := queue.end - queue.start) >= HEADER_LENGTH:
            start = queue.start
            magic, kind, length, check = HEADER.unpack_from(queue.data, start)
            if magic != self._magic:
                raise RemoteProtocolError("a Bitcoin message has the magic of another network")
            if length > self._limit:
                raise LimitExceeded("a Bitcoin message is longer than its network allows")
            end = start + HEADER_LENGTH + length
            if queued < HEADER_LENGTH + length:
                queue.expect(HEADER_LENGTH + length)
                return None
            queue.start = end
            if (
                sha256(sha256(queue.view[start + HEADER_LENGTH : end]).digest()).digest()[:4]
                != check
            ):
                self.corrupt += 1
            elif kind not in KNOWN_TYPES and not is_type(kind):
                self.untyped += 1
            else:
                return kind, start, end
        return None


@dataclass(frozen=True, slots=True, repr=False)
class Version:
    """What a VERSION payload says, as far as a proxy is concerned."""

    protocol: int
    services: int
    recv_host: IPv4Address | IPv6Address
    recv_port: int
    user_agent: bytes


def parse_version(payload: bytes | memoryview) -> Version:
    """Read a VERSION payload; raises RemoteProtocolError if it is cut short or too long."""
    agent = _user_agent_span(payload)
    protocol, services = struct.unpack_from("<iQ", payload)
    address = IPv6Address(bytes(payload[28:44]))
    return Version(
        protocol,
        services,
        address.ipv4_mapped or address,
        int.from_bytes(payload[44:46], "big"),
        bytes(payload[agent]),
    )


def _user_agent_span(payload: bytes | memoryview) -> slice:
    """Where the user agent's bytes are; its size must be written in as few bytes as it can."""
    if len(payload) <= _USER_AGENT:
        raise RemoteProtocolError("a VERSION message is cut short")
    length, start = payload[_USER_AGENT], _USER_AGENT + 1
    if length == 0xFD:
        length, start = int.from_bytes(payload[start : start + 2], "little"), start + 2
        if length < 0xFD:
            raise RemoteProtocolError("the user agent's size in a VERSION message is malformed")
    elif length > 0xFD:  # four or eight bytes of size follow
        length = MAX_USER_AGENT + 1
    if length > MAX_USER_AGENT or len(payload) < start + length:
        raise RemoteProtocolError("the user agent in a VERSION message is too long or cut short")
    return slice(start, start + length)


@dataclass(frozen=True, slots=True)
class VersionRewrite:
    """What to change in the VERSION messages a client sends; nothing by default.

    `scrub` zeroes both addresses, as Bitcoin Core does for its own; `suffix` is appended
    to the user agent where it fits; `advertise_v2` sets service bit 11.
    """

    scrub: bool = False
    suffix: bytes = b""
    advertise_v2: bool = False

    def __post_init__(self) -> None:
        if len(self.suffix) > MAX_USER_AGENT:
            raise ValueError("a user agent has at most 256 bytes")

    def __bool__(self) -> bool:
        return bool(self.scrub or self.suffix or self.advertise_v2)

    def apply(self, payload: bytes | memoryview) -> bytes:
        """The payload as it is to be sent; raises RemoteProtocolError if unreadable."""
        span = _user_agent_span(payload)
        changed = bytearray(payload[:_USER_AGENT])
        if self.scrub:
            services = bytes(changed[4:12])
            changed[_ADDRESSES] = bytes(8 + 18) + services + bytes(18)
        if self.advertise_v2:
            for offset in (4, 46):
                services_now = int.from_bytes(changed[offset : offset + 8], "little")
                changed[offset : offset + 8] = (services_now | SERVICE_P2P_V2).to_bytes(8, "little")
        agent = bytes(payload[span])
        if len(agent) + len(self.suffix) <= MAX_USER_AGENT:
            agent += self.suffix
        size = (
            bytes([len(agent)]) if len(agent) < 0xFD else b"\xfd" + len(agent).to_bytes(2, "little")
        )
        return bytes(changed) + size + agent + bytes(payload[span.stop :])
