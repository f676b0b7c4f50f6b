"""What a DNS client asks: parsed, refused, answered, and the answer read by dnspython."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Final

import dns.message

from isoproxy.dns.query import MAX_MESSAGE, Query, Rejected, parse_query
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.target import Target
from isoproxy.transparent.answer import VirtualZone, answer
from isoproxy.transparent.virtual_addresses import ClientMaps, VirtualPair
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


def _virtual(data: bytes) -> None:
    """Two clients whose names are the same in turn; each is told of its own addresses alone."""
    maps = ClientMaps(lambda size: bytes(size - 1) + data[:1])
    for now, client in enumerate((b"one", b"two", b"one")):
        assigned: list[str] = []

        def assign(
            name: str,
            client: bytes = client,
            now: float = now,
            assigned: list[str] = assigned,
        ) -> VirtualPair | None:
            assigned.append(name)
            return maps.assign(client, name, now)

        wire = answer(data[1:], VirtualZone(TopLevels()), assign)
        if wire is None:
            return
        assert len(wire) <= len(data) - 1 + 39
        for name in assigned:
            pair = maps.assign(client, name, now)
            assert pair is not None
            assert {maps.name_at(client, address, now) for address in pair} == {name}
            assert pair.ipv4.packed in wire or pair.ipv6.packed in wire
            ours = f".{name}".endswith((".bit", ".bit.onion"))
            assert ours or Target.parse(name, 80).may_be_sent_to_tor()


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
    FuzzTarget("dns-virtual", _virtual, (), [b"\0" + packet for packet in _packets()]),
    FuzzTarget(
        "dns-responder",
        _responder,
        (),
        [bytes([kind]) + packet for packet in _packets() for kind in range(4)],
    ),
]
