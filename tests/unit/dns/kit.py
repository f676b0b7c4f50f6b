"""A DNS server for the test chain, in memory or on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from isoproxy.dns.answer import Apex
from isoproxy.dns.query import ISOLATION_OPTION, MAX_MESSAGE, Query, parse_query
from isoproxy.dns.responder import Responder
from isoproxy.dns.server import DnsServer, DnsSettings
from isoproxy.dns.sign import Signer, ZoneKey
from isoproxy.isolation import Isolator, client_of_address
from isoproxy.namecoin.resolve.answer import Policy
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.endpoint import Endpoint
from tests.unit.dns.table import CHAIN
from tests.unit.namecoin.kit import CountingBackend

CLIENT = client_of_address("127.0.0.1")
KEY = ZoneKey.generate()
NOW = 1_800_000_000.0
LOOPBACK = Endpoint(host="127.0.0.1", port=0)


def question(
    name: str,
    rdtype: str,
    *,
    dnssec: bool = False,
    edns: bool = True,
    isolation: bytes | None = None,
    payload: int = 1232,
    ednsflags: int = 0,
) -> dns.message.Message:
    """A query; with `isolation` it carries option 65312."""
    options: list[dns.edns.Option] = []
    if isolation is not None:
        code = dns.edns.OptionType.make(ISOLATION_OPTION)
        options.append(dns.edns.GenericOption(code, isolation))
    message = dns.message.make_query(name, rdtype)
    if edns or dnssec:
        flags = ednsflags | (0x8000 if dnssec else 0)
        message.use_edns(0, flags, payload, options=options)
    return message


def parsed(message: dns.message.Message | bytes) -> Query:
    query = parse_query(message if isinstance(message, bytes) else message.to_wire())
    assert isinstance(query, Query)
    return query


@dataclass
class World:
    """A responder and what it stands on."""

    backend: CountingBackend
    isolator: Isolator
    resolver: Resolver
    responder: Responder

    async def ask(
        self,
        name: str,
        rdtype: str,
        *,
        client: bytes = CLIENT,
        limit: int = MAX_MESSAGE,
        **options: Any,
    ) -> dns.message.Message:
        """The response to a question, without any socket."""
        query = parsed(question(name, rdtype, **options))
        refused = self.responder.refusal(query)
        if refused is not None:
            return dns.message.from_wire(refused)
        key = self.responder.key_for(client, query)
        wire, _ = await self.responder.respond(query, client, key, limit)
        assert len(wire) <= limit
        return dns.message.from_wire(wire)


def world(
    values: Mapping[str, Any] = CHAIN,
    *,
    signed: bool = False,
    policy: Policy | None = None,
    delay: float = 0.0,
    clock: Any = None,
) -> World:
    """Everything but sockets."""
    backend = CountingBackend(values, delay)
    isolator = Isolator()
    resolver = Resolver(backend, isolator)
    responder = Responder(
        lambda _: resolver,
        isolator,
        Apex("127.0.0.1", KEY.dnskey if signed else None),
        signer=Signer(KEY, clock or (lambda: NOW)) if signed else None,
        policy=policy,
    )
    return World(backend, isolator, resolver, responder)


@contextlib.asynccontextmanager
async def serving(
    here: World, *, endpoint: Endpoint = LOOPBACK, queries_per_second: float = 100_000.0
) -> AsyncIterator[DnsServer]:
    """The server of `here`, listening."""
    server = DnsServer(here.responder, DnsSettings(endpoint, queries_per_second))
    await server.open()
    try:
        yield server
    finally:
        await server.close()
        await here.resolver.close()


def lines(rrsets: list[dns.rrset.RRset], *, but: tuple[str, ...] = ("RRSIG", "NSEC")) -> list[str]:
    """`owner type data`, one for each record, sorted."""
    return sorted(
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {rdata.to_text()}"
        for rrset in rrsets
        if dns.rdatatype.to_text(rrset.rdtype) not in but
        for rdata in rrset
    )


def rcode(message: dns.message.Message) -> str:
    return dns.rcode.to_text(message.rcode())


def is_authoritative(message: dns.message.Message) -> bool:
    return bool(message.flags & dns.flags.AA)
