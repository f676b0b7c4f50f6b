"""The DNS of programs that know no proxy: each name has a virtual address, and nothing else.

Theory of operation
    A query for an address of a name that may be dialled is answered with what stands for that
    name; one for anything else has no records, and a name that is dialled never does not exist.
    `localhost` is what it is everywhere.  No question goes anywhere from here.

Invariants
    Work is linear in the packet; no answer is more than 39 bytes longer than its query.
    What is answered tells of the client's own queries alone.

Specification: RFC 1035 §4.1 (messages), RFC 6761 §6.3 (`localhost`), RFC 7686 §2 (`onion`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.dns.query import (
    CLASS_IN,
    FORMERR,
    NOERROR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    Query,
    Rejected,
    bare_response,
    parse_query,
    response,
)
from isoproxy.errors import PolicyRefusal
from isoproxy.namecoin.value.name import Route, TopLevels
from isoproxy.net.target import Target
from isoproxy.transparent.virtual_addresses import VirtualPair

TTL_S: Final = 60
"""Seconds; far fewer than an address stays what it is."""
_A: Final = 1
_AAAA: Final = 28
BOTH: Final = frozenset({_A, _AAAA})
IPV4_ONLY: Final = frozenset({_A})
IPV6_ONLY: Final = frozenset({_AAAA})
_RECORD: Final = struct.Struct("!HHHIH")
_QUESTION: Final = 0xC00C
"""A pointer to the name in the question (RFC 1035 §4.1.4)."""
_LOCALHOST: Final = VirtualPair(IPv4Address("127.0.0.1"), IPv6Address("::1"))

Assign = Callable[[str], VirtualPair | None]
"""The addresses that stand for a name, or None where there is no room for it."""


@dataclass(frozen=True, slots=True)
class VirtualZone:
    """Who resolves which names, and the record types that have addresses (1: A, 28: AAAA)."""

    top_levels: TopLevels
    families: frozenset[int] = BOTH


def answer(packet: bytes, zone: VirtualZone, assign: Assign) -> bytes | None:
    """The response to one UDP packet; None where nothing must be answered."""
    query = parse_query(packet)
    if query is None:
        return None
    if isinstance(query, Rejected):
        return query.response
    if query.rdclass != CLASS_IN:
        return bare_response(query, REFUSED)
    try:
        name = Target.parse(b".".join(query.labels), 0)
    except PolicyRefusal:
        return bare_response(query, NXDOMAIN if query.labels else FORMERR)
    if name.is_ip or (
        name.top_level() != "localhost" and zone.top_levels.route(name.host) is Route.REFUSE
    ):
        return bare_response(query, NXDOMAIN)
    if query.rdtype not in zone.families:
        return bare_response(query, NOERROR)
    pair = _LOCALHOST if name.top_level() == "localhost" else assign(name.host)
    if pair is None:
        return bare_response(query, SERVFAIL)
    return _with_address(query, pair.ipv4 if query.rdtype == _A else pair.ipv6)


def _with_address(query: Query, address: IPv4Address | IPv6Address) -> bytes:
    data = address.packed
    record = _RECORD.pack(_QUESTION, query.rdtype, CLASS_IN, TTL_S, len(data)) + data
    return response(query, NOERROR, record, (1, 0, 0))
