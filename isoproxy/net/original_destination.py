"""Where a connection was going before nftables redirected it: SO_ORIGINAL_DST.

Specification: SO_ORIGINAL_DST of the kernel's `netfilter_ipv4.h` and `ip6_tables.h`; sockaddr(3).
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h
_SOL_IPV6: Final = 41


def original_destination(
    client: socket.socket,
) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Where a redirected connection was going; None if it was not redirected."""
    try:
        if client.family == socket.AF_INET6:
            raw = client.getsockopt(_SOL_IPV6, _SO_ORIGINAL_DST, 28)
        elif client.family == socket.AF_INET:
            raw = client.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        else:
            return None
    except OSError:  # the kernel tracks no such connection
        return None
    destination = parse_sockaddr(raw)
    local = client.getsockname()
    return None if (str(destination[0]), destination[1]) == local[:2] else destination


def parse_sockaddr(raw: bytes) -> tuple[IPv4Address | IPv6Address, int]:
    """Address and port of a `sockaddr_in` (16 bytes) or `sockaddr_in6` (28 bytes)."""
    (port,) = struct.unpack_from("!H", raw, 2)
    if len(raw) >= 28:
        return IPv6Address(raw[8:24]), port
    return IPv4Address(raw[4:8]), port
