"""Who asks, under which isolation key, and what goes back.

Theory of operation
    A client and the isolation ID in its query give the isolation key; no ID is a key of
    its own for each client.  Under that key the name's values are fetched, redirections
    inside `bit` followed, and the answer rendered.  Rendered answers are kept for
    PACKET_S under the same key: the same bytes from the same client get the same answer
    again without any of that, only the message's ID is another.

Invariants
    No key, no answer: what is refused before a key exists says nothing about any name.
    One query is one resolution with the resolver's budget and deadline, however many aliases
    it follows.  What was not found out is SERVFAIL, or missing behind an alias, and is
    not kept.
    A kept answer outlives the value it was made from by at most PACKET_S.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import dns.name
from dns.rdatatype import RdataType

from isoproxy.dns.answer import ORIGIN, Apex, DnsAnswer, answer_steps, bit_name
from isoproxy.dns.extended_error import extended_error
from isoproxy.dns.query import (
    BADVERS,
    CLASS_IN,
    FORMERR,
    NXDOMAIN,
    NXNAME,
    REFUSED,
    SERVFAIL,
    Query,
    bare_response,
)
from isoproxy.dns.render import render
from isoproxy.dns.sign import Signer
from isoproxy.errors import OUTCOMES, IsoproxyError
from isoproxy.isolation import (
    DEFAULT_ISOLATION,
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.namecoin.resolve.answer import Policy
from isoproxy.namecoin.resolve.cache import KeyedCache
from isoproxy.namecoin.resolve.resolution import MAX_ALIASES, Resolution
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.observe.log import logger

PACKET_S: Final = 30.0
MAX_KEPT_PACKET: Final = 512
"""Bytes of the longest query whose answer is kept: the query is kept with it."""
_RULE: Final = ListenerRule(own_group("dns"), DEFAULT_ISOLATION)
_QUESTIONS_ONLY: Final = frozenset({0, 41, 46, *range(128, 255)})
"""Types that no record of a zone has, or (RRSIG) that are only ever sent along."""

_log = logger("dns")


def dns_key(isolator: Isolator, client: bytes, isolation: bytes | None) -> IsolationKey:
    """The key of `client`'s queries with that isolation ID."""
    stream = IsolationTuple(client, ClientProtocol.DNS, username=isolation)
    return isolator.key_for(_RULE, stream)


class Responder:
    """Answers queries about `bit`; with a `signer`, provably.

    `resolver_of` gives the resolver for a client, or raises NamingError.
    """

    def __init__(
        self,
        resolver_of: Callable[[bytes], Resolver],
        isolator: Isolator,
        apex: Apex,
        *,
        signer: Signer | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver_of: Final = resolver_of
        self._isolator: Final = isolator
        self._apex: Final = apex
        self._signer: Final = signer
        self._policy = policy or Policy()
        self._clock: Final = clock
        self._kept: Final[KeyedCache[tuple[int, bytes], bytes]] = KeyedCache()
        isolator.on_new_epoch(self._kept.clear)
        isolator.on_renewal(lambda: self._kept.keep(isolator.is_current))

    def follow(self, policy: Policy) -> None:
        """Answer by `policy` from now on; what was kept by another one is forgotten."""
        self._policy = policy
        self._kept.clear()

    def key_for(self, client: bytes, query: Query) -> IsolationKey:
        """The key under which `client` (see `isoproxy.isolation`) asks `query`."""
        return dns_key(self._isolator, client, query.isolation)

    def on_new_keys(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when all keys change, or one does."""
        self._isolator.on_new_epoch(callback)
        self._isolator.on_renewal(callback)

    def is_current(self, key: IsolationKey) -> bool:
        """Whether `key_for` would still give `key`."""
        return self._isolator.is_current(key)

    def refusal(self, query: Query) -> bytes | None:
        """The response to a query that this zone has no answer for, whatever the names."""
        if query.edns is not None and query.edns.version:
            return bare_response(query, BADVERS)
        if query.rdtype == NXNAME:
            return bare_response(query, FORMERR)
        if query.rdclass != CLASS_IN or query.rdtype in _QUESTIONS_ONLY:
            return bare_response(query, REFUSED)
        if not query.labels or query.labels[-1].lower() != b"bit":
            return bare_response(query, REFUSED)
        return None

    def kept(self, packet: bytes, key: IsolationKey, limit: int) -> bytes | None:
        """The answer to the same packet from a moment ago, if there is one."""
        entry = self._kept.get(key, (limit, packet[2:]), self._clock())
        return None if entry is None else packet[:2] + entry.value

    async def respond(
        self, query: Query, client: bytes, key: IsolationKey, limit: int
    ) -> tuple[bytes, bool]:
        """The response for `client`, at most `limit` bytes, and whether it may be kept."""
        policy = self._policy
        try:
            resolver = self._resolver_of(client)
            async with resolver.resolution(key) as resolution:
                answer = await self._answer(query, resolution)
            may_be_kept = answer.whole and self._policy is policy
            return render(query, answer, self._signer, limit), may_be_kept
        except IsoproxyError as error:
            rcode, why = OUTCOMES[error.kind].rcode, extended_error(error)
            return bare_response(query, rcode, error=why, limit=limit), False
        except Exception as error:
            _log.err("internal_error", error=error)
            return bare_response(query, SERVFAIL), False

    def keep(self, packet: bytes, response: bytes, key: IsolationKey, limit: int) -> None:
        """Have `kept` find `response` for PACKET_S."""
        if self._isolator.is_current(key) and len(packet) <= MAX_KEPT_PACKET:
            subject = (limit, packet[2:])
            self._kept.put(key, subject, response[2:], self._clock() + PACKET_S)

    async def _answer(self, query: Query, resolution: Resolution) -> DnsAnswer:
        """The whole answer: the first link and those that redirections inside `bit` add.

        A DNAME that would be passed twice ends it: a message has a record once (RFC 2181
        §5), and resolvers want a DNAME right before the CNAME that is made from it.
        """
        rdtype = RdataType.make(query.rdtype)
        name = dns.name.Name((*query.labels, b""))
        answer = await self._link(name, rdtype, resolution)
        seen = {name}
        while answer.follow is not None and len(seen) <= MAX_ALIASES:
            name, answer.follow = answer.follow, None
            if name in seen or not name.is_subdomain(ORIGIN):
                break
            seen.add(name)
            try:
                link = await self._link(name, rdtype, resolution)
            except IsoproxyError:
                answer.whole = False  # the alias is sure; the client may ask for its target
                break
            if not link.authoritative or any(entry in answer.answer for entry in link.answer):
                break
            answer.rcode, answer.follow, answer.denial = link.rcode, link.follow, link.denial
            answer.answer += link.answer
            answer.authority = link.authority
        return answer

    async def _link(
        self, name: dns.name.Name, rdtype: RdataType, resolution: Resolution
    ) -> DnsAnswer:
        """What the zone says at `name` alone."""
        own = self._apex.answer(name, rdtype)
        if own is not None:
            return own
        bit = bit_name(name)
        if bit is None:
            return self._apex.nothing(name)
        try:
            return await resolution.explore(
                bit,
                lambda domain: answer_steps(
                    domain, name, bit.labels, rdtype, self._apex, self._policy
                ),
            )
        except IsoproxyError as error:
            if OUTCOMES[error.kind].rcode == NXDOMAIN:
                return self._apex.nothing(name)
            raise
