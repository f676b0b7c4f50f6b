"""One resolution: from a name to an answer, value by value.

Theory of operation
    A Resolution drives the sans-IO `Domain` objects of the names it meets, fetching the values
    they ask for.  The order at each name: onion services in the TXT records at
    `_tor.<name>`, its `tor` item, A, AAAA, and then the alias (or what a `translate`
    above it makes of it), where everything starts again.

    The TXT records at `_tor.<name>` may themselves lie behind a redirection (a `translate`
    at the name, an alias that a wildcard catches).  It is followed; where it leads in a
    circle or to a name that is not there, there are none.

Invariants
    At most MAX_FETCHES values are asked for and MAX_ALIASES redirections followed in one
    resolution; beyond that NamingError(NAME_BUDGET).  A value is asked for once.
    A value that cannot be had for now ends the resolution, even where it is only imported: the
    answer could be another with it.

Specification: IFA-0001; docs/namecoin-values.md says in what we differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from dns.rdata import Rdata
from dns.rdatatype import RdataType

from isoproxy.errors import ErrorKind, IsoproxyError, NamingError, PolicyRefusal
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.backend import ABSENT_REASONS, Absent, Found
from isoproxy.namecoin.resolve.answer import (
    NameAnswer,
    Policy,
    Status,
    TargetType,
    Want,
    address_answer,
    onions_in_txt,
    pick,
)
from isoproxy.namecoin.resolve.cached_backend import CachedBackend, Fetched
from isoproxy.namecoin.value.domain import Domain, Inquiry, Node
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.onion_address import onion_host
from isoproxy.net.target import Target

MAX_ALIASES: Final = 8
MAX_FETCHES: Final = 16

_T = TypeVar("_T")


class Resolution:
    """One resolution under `key`, with the values of `backend`.

    `ends` is the moment (s) from which on what the resolution learned no longer counts.
    """

    def __init__(self, backend: CachedBackend, key: IsolationKey, policy: Policy) -> None:
        self.ends = math.inf
        self._backend: Final = backend
        self._key: Final = key
        self._policy: Final = policy
        self._fetched: Final[dict[bytes, Fetched]] = {}
        self._domains: Final[dict[str, Domain]] = {}
        self._redirections = 0
        self._last: BitName | None = None

    async def resolve(self, wanted: BitName, want: Want) -> NameAnswer:
        """The answer for `wanted`; a failure is an answer too."""
        try:
            target, kind = await self._target(wanted, want)
            tlsa = await self._tlsa(wanted) if want is Want.SITE else ()
            answer = NameAnswer(str(wanted), Status.OK, target, kind, tlsa=tlsa)
        except IsoproxyError as error:
            answer = NameAnswer.failure(str(wanted), error)
        servers = [server for known in self._fetched.values() for server in known.outcome.servers]
        answer = replace(
            answer,
            servers=tuple(dict.fromkeys(servers)),
            cached=bool(self._fetched) and all(known.cached for known in self._fetched.values()),
        )
        own = self._fetched.get(wanted.key)
        if own is None or isinstance(own.outcome, Absent):
            return answer
        found = own.outcome
        return replace(
            answer,
            height=found.height,
            expires_in=found.expires_in,
            evidence=found.evidence,
        )

    async def look_at(self, name: BitName) -> Node:
        """What the value of `name` says about exactly this name."""
        domain = await self._domain(name)
        return await self._run(domain.at(name.labels))

    async def zone(self, name: BitName) -> list[Node]:
        """All that the value of `name`'s base name says."""
        domain = await self._domain(name)
        return await self._run(domain.zone())

    async def explore(self, name: BitName, steps: Callable[[Domain], Inquiry[_T]]) -> _T:
        """What `steps` find in the value of `name`'s base name."""
        return await self._run(steps(await self._domain(name)))

    async def found(self, name: BitName) -> Found:
        """Where the value of `name` comes from; raises NamingError if there is none."""
        outcome = await self._value(name.key)
        if isinstance(outcome, Absent):
            raise NamingError(kind=outcome.reason)
        return outcome

    async def _target(self, name: BitName, want: Want) -> tuple[str, TargetType]:
        only_onion = self._policy.only_onion
        while True:
            self._last = name
            only_onion = only_onion or name.onion_only
            onions = [] if want is Want.ADDRESS else await self._onions(name)
            if onions:
                return pick(onions, self._key), TargetType.ONION
            node = await self.look_at(name)
            address = None if only_onion else address_answer(node, self._key, self._policy)
            if isinstance(address, tuple):
                return address
            if node.redirect is None:
                nothing = ErrorKind.NAME_NO_ADDRESS if node.exists else ErrorKind.NAME_ABSENT
                raise NamingError(kind=address or nothing)
            self._follow()
            if not _is_under_bit(node.redirect):
                return self._outside(node.redirect, want, only_onion)
            name = BitName.parse(node.redirect)

    def _outside(self, host: str, want: Want, only_onion: bool) -> tuple[str, TargetType]:
        """The target of an alias that leads out of Namecoin, if it may be an answer."""
        onion = onion_host(host)
        if onion is not None and want is not Want.ADDRESS:
            return onion, TargetType.ONION
        try:
            target = Target.parse(host, 0)
        except PolicyRefusal:
            raise NamingError(kind=ErrorKind.NAME_NO_ADDRESS) from None
        if only_onion or target.is_ip or target.is_onion or not target.may_be_sent_to_tor():
            raise NamingError(kind=ErrorKind.NAME_NO_ADDRESS)
        if not self._policy.allow_clearnet_alias:
            raise NamingError(kind=ErrorKind.NOT_ALLOWED)
        return host, TargetType.ALIAS

    async def _onions(self, name: BitName) -> list[str]:
        """The v3 onion services of `name`."""
        node = await self._behind(BitName(name.base, ("_tor", *name.labels)))
        onions = [] if node is None or node.delegated else onions_in_txt(node.records)
        return onions or (await self.look_at(name)).records.tor

    async def _tlsa(self, wanted: BitName) -> tuple[bytes, ...]:
        """Of the name that aliases led to, or else of the one that was asked (RFC 7671 §7)."""
        for name in dict.fromkeys((self._last or wanted, wanted)):
            node = await self._behind(BitName(name.base, ("_443", "_tcp", *name.labels)))
            if node is not None and not node.delegated and RdataType.TLSA in node.records.rdatas:
                return tuple(map(_data, node.records.rdatas[RdataType.TLSA]))
        return ()

    async def _behind(self, name: BitName) -> Node | None:
        """What redirections at `name` lead to; None where that is not there."""
        node = await self.look_at(name)
        seen = {node.owner}
        while (
            node.redirect is not None and node.redirect not in seen and _is_under_bit(node.redirect)
        ):
            seen.add(node.redirect)
            self._follow()
            try:
                node = await self.look_at(BitName.parse(node.redirect))
            except NamingError as error:
                if error.kind not in ABSENT_REASONS:
                    raise
                return None
        return node

    def _follow(self) -> None:
        self._redirections += 1
        if self._redirections > MAX_ALIASES:
            raise NamingError(kind=ErrorKind.NAME_BUDGET)

    async def _domain(self, name: BitName) -> Domain:
        domain = self._domains.get(name.base)
        if domain is None:
            found = await self.found(name)
            domain = self._domains[name.base] = Domain(name.base, found.value)
        return domain

    async def _run(self, steps: Inquiry[_T]) -> _T:
        """Give `steps` the values it asks for, until it has its result."""
        value: bytes | None = None
        try:
            wanted = next(steps)
            while True:
                outcome = await self._value(wanted)
                value = outcome.value if isinstance(outcome, Found) else None
                wanted = steps.send(value)
        except StopIteration as stop:
            result: _T = stop.value
            return result

    async def _value(self, name: bytes) -> Found | Absent:
        known = self._fetched.get(name)
        if known is None:
            if len(self._fetched) >= MAX_FETCHES:
                raise NamingError(kind=ErrorKind.NAME_BUDGET)
            known = self._fetched[name] = await self._backend.lookup(name, self._key)
            self.ends = min(self.ends, known.ends)
        return known.outcome


def _is_under_bit(host: str) -> bool:
    return host.endswith((".bit", ".bit.onion"))


def _data(rdata: Rdata) -> bytes:
    wire = rdata.to_wire()
    assert wire is not None, "it was given nothing to write to"
    return wire
