"""Names as the front end asks for them: the right resolver for the client, and counts.

Theory of operation
    A host name becomes a `BitName` here, once for its whole way.  Each client's network
    has a resolver (`client_views.ClientViews`), most often the same one for all.  A
    resolution is counted by its outcome and, where a backend was asked, by how long it
    took, and for its identity.  Neither names nor clients are counted.

Invariants
    A failure is a NamingError with the reason as its kind; there is no other way out of
    `address_of` and `site_of` than that or an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from isoproxy.errors import NamingError, PolicyRefusal
from isoproxy.isolation import IsolationKey, describe_client
from isoproxy.namecoin.resolve.answer import NameAnswer, Site, Status, Want
from isoproxy.namecoin.resolve.client_views import ClientViews
from isoproxy.namecoin.resolve.lookup_counts import LookupCounts
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.target import Target
from isoproxy.observe.metrics import Metrics

_IP_FAMILIES: Final = (b"4", b"6")


class NameService:
    """Resolves for clients of the front end.

    `resolvers` are all that `by_client` can choose; `backend` is what metrics call their
    source ("electrum", "electrum-nmc" or "namecoin-core").
    """

    def __init__(
        self,
        backend: str,
        resolvers: Sequence[Resolver],
        by_client: ClientViews[Resolver],
        metrics: Metrics,
        counts: LookupCounts,
    ) -> None:
        self.backend: Final = backend
        self._resolvers: Final = tuple(resolvers)
        self._by_client: Final = by_client
        self._metrics: Final = metrics
        self._counts: Final = counts
        self._seconds: Final = metrics.name_seconds.of(backend=backend)

    @property
    def lookups(self) -> dict[str, int]:
        """How many each identity asked for, by label."""
        return self._counts.by_label()

    @property
    def cached(self) -> int:
        """Values and answers in the caches of all identities."""
        return sum(resolver.cached for resolver in self._resolvers)

    def resolver_of(self, client: bytes | None) -> Resolver:
        """The resolver for a client, given as its field of the isolation tuple.

        Raises NamingError if none is set up for its network.
        """
        is_address = client is not None and client[:1] in _IP_FAMILIES
        return self._by_client.choose(describe_client(client) if is_address else None)

    async def resolve(
        self,
        name: BitName,
        key: IsolationKey,
        want: Want = Want.STREAM,
        client: bytes | None = None,
    ) -> NameAnswer:
        """The answer for `name` under `key`; failures are answers too.

        Raises NamingError as `resolver_of` does.
        """
        self._counts.add(key)
        began = time.monotonic()
        answer = await self.resolver_of(client).resolve(name, key, want)
        if not answer.cached:
            self._seconds.observe(time.monotonic() - began)
        self._count(answer)
        return answer

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        """Where a stream to `target`, a host under bit, is to go: the front end's question.

        Raises:
            NamingError: there is no answer; its kind is the reason.
        """
        place, _ = await self._place(target, key, want, client)
        return place

    async def site_of(self, target: Target, key: IsolationKey, client: bytes | None) -> Site:
        """Where the HTTPS server of `target` is, and what its name says of its certificate.

        Raises NamingError as `address_of` does.
        """
        place, answer = await self._place(target, key, Want.SITE, client)
        return Site(place, answer.tlsa)

    async def _place(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> tuple[Target, NameAnswer]:
        try:
            name = BitName.parse(target.host)
        except PolicyRefusal as refusal:
            raise NamingError(kind=refusal.kind) from None
        answer = await self.resolve(name, key, want, client)
        if answer.target is None:
            raise NamingError(answer.problem or "", kind=answer.reason)
        return target.with_host(answer.target), answer

    async def close(self) -> None:
        """End every look-up under way, and the backends."""
        self._counts.close()
        await asyncio.gather(*(resolver.close() for resolver in self._resolvers))

    def _count(self, answer: NameAnswer) -> None:
        metrics = self._metrics
        (metrics.name_cache_hits if answer.cached else metrics.name_cache_misses).value += 1
        if answer.status is Status.OK:
            outcome = "cached" if answer.cached else "ok"
        else:
            assert answer.reason is not None
            outcome = answer.reason.value
        metrics.names.of(backend=self.backend, outcome=outcome).value += 1
