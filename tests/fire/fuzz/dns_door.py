"""What a DNS client asks: parsed, refused, answered, and the answer read by dnspython."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Final

import dns.message

from isoproxy.dns.query import MAX_MESSAGE, Query, Rejected, parse_query
from tests.fire.fuzz.target import FuzzTarget
from tests.unit.dns.kit import CLIENT, World, question, world


def _query(data: bytes) -> None:
    found = parse_query(data)
    if isinstance(found, Rejected):
        assert len(found.response) <= 12
        assert found.response[:2] == data[:2]


@cache
def _world(*, signed: bool) -> World:
    return world(signed=signed)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _responder(data: bytes) -> None:
    """Byte 0 says whether the zone is signed and how long the response may be."""
    query = parse_query(data[1:])
    if not isinstance(query, Query):
        return
    here = _world(signed=bool(data[0] & 1))
    limit = MAX_MESSAGE if data[0] & 2 else min(query.udp_limit, 1232)
    wire = here.responder.refusal(query)
    if wire is None:
        key = here.responder.key_for(CLIENT, query)
        wire, _ = _loop().run_until_complete(here.responder.respond(query, CLIENT, key, limit))
    assert len(wire) <= limit
    answer = dns.message.from_wire(wire)
    assert answer.id == query.id


def _packets() -> list[bytes]:
    asked = [
        question("plain.bit", "A"),
        question("www.plain.bit", "AAAA", dnssec=True),
        question("x.star.bit", "TXT", isolation=b"tag"),
        question("_smtp._tcp.mail.bit", "SRV", edns=False),
        question("bit", "SOA", dnssec=True),
    ]
    return [message.to_wire() for message in asked]


TARGETS: Final = [
    FuzzTarget("dns-query", _query, (), _packets()),
    FuzzTarget(
        "dns-responder",
        _responder,
        (),
        [bytes([kind]) + packet for packet in _packets() for kind in range(4)],
    ),
]
