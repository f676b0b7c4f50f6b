"""The words and fields that both sides of SOCKS share (RFC 1928 §4-6, RFC 1929)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.errors import LocalProtocolError

VERSION4: Final = 4
VERSION5: Final = 5
AUTH_VERSION: Final = 1
NO_AUTH: Final = 0x00
USERNAME_PASSWORD: Final = 0x02
NO_ACCEPTABLE_METHODS: Final = 0xFF

MAX_HANDSHAKE: Final = 257 + 513 + 262
"""Bytes of the longest legal SOCKS5 handshake: greeting, authentication, request."""
MAX_SOCKS4_FIELD: Final = 255
"""Bytes of a SOCKS4 user id or SOCKS4a host name."""

Address = IPv4Address | IPv6Address
UNSPECIFIED: Final = IPv4Address(0)


class Version(Enum):
    """The protocol a client turned out to speak."""

    SOCKS4 = "socks4"
    SOCKS5 = "socks5"


class Command(IntEnum):
    """RFC 1928 §4 and Tor's two."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03
    RESOLVE = 0xF0
    RESOLVE_PTR = 0xF1


class AddressType(IntEnum):
    """RFC 1928 §5 ATYP."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What the client asked for, unjudged.

    `host` is the text of an IP address where the client sent one, else the raw bytes of
    the name.  `username` and `password` are None where the client sent none.
    """

    version: Version
    command: Command
    host: bytes
    port: int
    username: bytes | None = None
    password: bytes | None = None

    def __repr__(self) -> str:
        return f"<Request {self.version.name} {self.command.name}>"


def encode_address(host: Address | bytes | str, port: int) -> bytes:
    """ATYP, address and port as RFC 1928 §5 writes them.

    `host` is a name of 1-255 bytes, or an IP address: as an object, or as its canonical
    text (a str), which costs less.
    """
    if isinstance(host, str):
        if ":" in host:
            body = b"\x04" + IPv6Address(host).packed
        else:
            body = b"\x01" + bytes(map(int, host.split(".")))
    elif isinstance(host, bytes):
        if not 0 < len(host) <= 255:
            raise LocalProtocolError("a SOCKS5 host name has 1 to 255 bytes")
        body = b"\x03%c%b" % (len(host), host)
    else:
        body = (b"\x01" if isinstance(host, IPv4Address) else b"\x04") + host.packed
    return body + port.to_bytes(2)


def encode_reply(code: int, address: Address | bytes = UNSPECIFIED, port: int = 0) -> bytes:
    """A SOCKS5 reply (RFC 1928 §6)."""
    return bytes((VERSION5, code, 0)) + encode_address(address, port)


_LENGTHS: Final = {int(AddressType.IPV4): 4, int(AddressType.IPV6): 16}


def address_length(address_type: int, first: int) -> int | None:
    """Bytes of the address behind ATYP, whose first byte is `first`; None for no ATYP."""
    return 1 + first if address_type == AddressType.NAME else _LENGTHS.get(address_type)


def decode_host(address_type: int, body: bytes) -> bytes:
    """The text of an address, or the raw bytes of a name, from what follows ATYP."""
    if address_type == AddressType.NAME:
        return body[1:]
    if address_type == AddressType.IPV4:
        return b"%d.%d.%d.%d" % tuple(body)
    return str(IPv6Address(body)).encode()
