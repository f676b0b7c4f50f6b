"""The loopback interface of a new network namespace: up, and every address is its own.

Theory of operation
    A route of type `local` for everything makes all addresses ones of this machine, so that a
    connection to any of them is made, and redirected.  The interface gets a global address of
    each family: programs that see nothing but loopback addresses ask for none of the DNS
    (getaddrinfo(3), AI_ADDRCONFIG).

Specification: rtnetlink(7), netlink(7), netdevice(7).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Final

from isoproxy.transparent.virtual_addresses import OWN4, OWN6, Address

_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_RTM_NEWADDR: Final = 20
_RTM_NEWROUTE: Final = 24
_REQUEST: Final = 0x1 | 0x4 | 0x400  # NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
_NLMSG_ERROR: Final = 2
_IFA_F_NODAD: Final = 0x02
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_RTA_OIF: Final = 4
_RTN_LOCAL: Final = 2
_RTPROT_STATIC: Final = 4
_TABLE_MAIN: Final = 254
_SCOPE_HOST: Final = 254


def make_everything_local() -> None:
    """Of the namespace that this process is in; raises OSError."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
    link = socket.if_nametoindex("lo")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for address in (OWN4, OWN6) if has_ipv6() else (OWN4,):
            _ask(netlink, _RTM_NEWADDR, _new_address(address, link))
            _ask(netlink, _RTM_NEWROUTE, _all_local(_family(address), link))


def has_ipv6() -> bool:
    """Whether the kernel speaks IPv6."""
    return os.path.exists("/proc/net/if_inet6")


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _new_address(address: Address, link: int) -> bytes:
    """A `struct ifaddrmsg` with its attributes."""
    packed = address.packed
    head = struct.pack("BBBBI", _family(address), len(packed) * 8, _IFA_F_NODAD, 0, link)
    return head + _attribute(_IFA_ADDRESS, packed) + _attribute(_IFA_LOCAL, packed)


def _all_local(family: int, link: int) -> bytes:
    """A `struct rtmsg` for all addresses of the family."""
    kind = (_TABLE_MAIN, _RTPROT_STATIC, _SCOPE_HOST, _RTN_LOCAL)
    return struct.pack("8BI", family, 0, 0, 0, *kind, 0) + _attribute(
        _RTA_OIF, struct.pack("I", link)
    )


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _ask(netlink: socket.socket, kind: int, body: bytes) -> None:
    netlink.send(struct.pack("IHHII", 16 + len(body), kind, _REQUEST, 1, 0) + body)
    reply = netlink.recv(4096)
    answered, (problem,) = struct.unpack_from("H", reply, 4)[0], struct.unpack_from("i", reply, 16)
    if answered != _NLMSG_ERROR or problem:
        raise OSError(-problem, os.strerror(-problem))
