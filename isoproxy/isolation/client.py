"""The client field of an isolation tuple: an address, or the user on a unix socket.

Invariants
    Two clients that Tor would keep apart have different fields.  A budget is shared by what
    one machine can be many of, so that nobody multiplies by taking more addresses.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final


def client_of_address(host: str, scope: int = 0) -> bytes:
    """The client field of a TCP client; `host` is the text of its IP address.

    `scope` is the link that a link-local address is one on (sin6_scope_id): another link
    may have another machine of that address.
    """
    address = ip_address(host.partition("%")[0])
    family = b"4" if isinstance(address, IPv4Address) else b"6"
    return family + address.packed + (scope.to_bytes(4) if scope else b"")


def client_of_uid(uid: int) -> bytes:
    """The client field of a client on a unix socket: the user it runs as."""
    return b"u%d" % uid


def budget_of(client: bytes | None) -> bytes:
    """Whose budget a client field draws on: what one machine can be many of counts once.

    All of 127.0.0.0/8 and ::1 are this machine; of IPv6 the first 64 bits count, which is
    what one machine is given.
    """
    if client is None:
        return b""
    family, packed = client[:1], client[1:17]
    if family == b"6" and packed[:12] == _IPV4_MAPPED:
        family, packed = b"4", packed[12:]
    if packed == _IPV6_LOOPBACK or (family == b"4" and packed[:1] == b"\x7f"):
        return _THIS_MACHINE
    return family + packed[:8] if family == b"6" else family + packed


_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"


_IPV6_LOOPBACK: Final = bytes(15) + b"\x01"


_THIS_MACHINE: Final = b"this machine"


def describe_client(client: bytes | None) -> str:
    """The client field in words, for `isoproxy explain`."""
    if client is None:
        return "none"
    if client[:1] == b"u":
        return f"user id {client[1:].decode()}"
    return str(IPv4Address(client[1:]) if client[:1] == b"4" else IPv6Address(client[1:17]))
