"""Builds with a fault that the product once had, or could have: what the classifiers must find.

Each is a change to classes of the product, made while the operator watches (`Build`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.electrum import lookup
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.rate_limit import CostBudget
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import ElectrumSession
from isoproxy.namecoin.resolve.cache import KeyedCache

Build = Callable[[pytest.MonkeyPatch], None]


def _later(pool: ServerPool, seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, pool._open_one)


def replaced_a_while_later(patch: pytest.MonkeyPatch) -> None:
    """What was taken is replaced, half a minute later on average."""
    take = ServerPool._take

    def taken(self: ServerPool, server: NameServer, client: bytes) -> ElectrumSession | None:
        _later(self, random.expovariate(1 / 30.0))
        return take(self, server, client)

    patch.setattr(ServerPool, "_take", taken)


def newnym_closes(patch: pytest.MonkeyPatch) -> None:
    """A new identity closes what carries no name, and opens as many a random while later."""
    unbind = ServerPool.unbind_all

    def closes(self: ServerPool) -> None:
        unbind(self)
        for session in [one for sessions in self._reserve.values() for one in sessions]:
            session.close()
            _later(self, random.expovariate(1 / 30.0))

    patch.setattr(ServerPool, "unbind_all", closes)


def newnym_opens(patch: pytest.MonkeyPatch) -> None:
    """A new identity has a few connections opened."""
    unbind = ServerPool.unbind_all

    def opens(self: ServerPool) -> None:
        unbind(self)
        for _ in range(2):
            _later(self, random.expovariate(1 / 5.0))

    patch.setattr(ServerPool, "unbind_all", opens)


class _First(random.SystemRandom):
    def randrange(self, *limits: Any) -> int:
        return 0


def oldest_first(patch: pytest.MonkeyPatch) -> None:
    """Of the reserve the oldest is taken."""
    take = ServerPool._take

    def taken(self: ServerPool, server: NameServer, client: bytes) -> ElectrumSession | None:
        patched, self._rng = self._rng, _First()
        try:
            return take(self, server, client)
        finally:
            self._rng = patched

    patch.setattr(ServerPool, "_take", taken)


def shared_connections(patch: pytest.MonkeyPatch) -> None:
    """All look-ups at a server go over the connection of whoever asked first."""
    session = ServerPool.session
    first: dict[tuple[int, str], IsolationKey] = {}

    async def shared(self: ServerPool, key: IsolationKey, server: NameServer) -> ElectrumSession:
        owner = first.setdefault((id(self), server.label), key)
        return await session(self, owner if self._isolator.is_current(owner) else key, server)

    patch.setattr(ServerPool, "session", shared)


def shared_cache(patch: pytest.MonkeyPatch) -> None:
    """What was learned under one key is found under all."""
    get, put = KeyedCache.get, KeyedCache.put
    everybody: Any = object()
    patch.setattr(KeyedCache, "get", lambda self, key, *rest: get(self, everybody, *rest))
    patch.setattr(KeyedCache, "put", lambda self, key, *rest: put(self, everybody, *rest))


def own_tip(patch: pytest.MonkeyPatch) -> None:
    """Questions carry our own height, and one server holds a round of headers up."""
    ask = lookup.NameQuestion._ask

    async def asks(self: Any, session: ElectrumSession) -> Any:
        said = session.tip
        if said is not None and said.height > self._chain.tip_height:
            session.tip = replace(said, height=self._chain.tip_height)
        try:
            return await ask(self, session)
        finally:
            session.tip = said

    patch.setattr(lookup.NameQuestion, "_ask", asks)
    patient = SyncSettings(timeout=120.0, beside=120.0)
    patch.setattr("isoproxy.namecoin.electrum.header_sync.SyncSettings", lambda: patient)
    patch.setattr("isoproxy.namecoin.electrum.backend.SyncSettings", lambda: patient)
    patch.setattr(
        "tests.fire.operator.ElectrumSettings",
        lambda **given: _settings(**given, sync=patient),
    )


def common_pings(patch: pytest.MonkeyPatch) -> None:
    """All connections of a client are pinged in rounds."""
    admit = ServerPool._admit

    def admitted(self: ServerPool, session: ElectrumSession, *rest: Any) -> None:
        admit(self, session, *rest)
        handle = self._open.get(session)
        if handle is not None:
            loop, phase = asyncio.get_running_loop(), id(self) % 300
            handle.cancel()

            def ping() -> None:
                session.ping()
                if not session.closed.is_set():
                    self._open[session] = loop.call_later(300.0, ping)

            self._open[session] = loop.call_later(300.0 - (loop.time() - phase) % 300.0, ping)

    patch.setattr(ServerPool, "_admit", admitted)


def shared_scores(patch: pytest.MonkeyPatch) -> None:
    """A server that knew less than another is asked last by all keys for half an hour."""
    mark = Scores.mark_lagging

    def marked(self: Scores, server: NameServer, now: float) -> None:
        mark(self, server, now)
        if self.common is not None:
            mark(self.common, server, now)

    ranked = Scores.ranked

    def by_all(self: Scores, now: float, bound: Any = ()) -> list[NameServer]:
        order = ranked(self, now, bound)
        common = self.common
        if common is None:
            return order
        return sorted(
            order, key=lambda one: one.label not in bound and now < common.of(one).suspect_until
        )

    patch.setattr(Scores, "mark_lagging", marked)
    patch.setattr(Scores, "ranked", by_all)


def shared_rate(patch: pytest.MonkeyPatch) -> None:
    """Nothing stands ready, and what look-ups open is limited for all identities together."""
    none = PoolSettings(reserve=0)
    patch.setattr(
        "tests.fire.operator.ElectrumSettings",
        lambda **given: _settings(**given, pool=none),
    )
    opens = ServerPool._open_own
    rates: dict[ServerPool, CostBudget] = {}

    async def waits(self: ServerPool, server: NameServer, client: bytes) -> ElectrumSession:
        rate = rates.setdefault(self, CostBudget(4.0, 1 / 240.0))
        delay = rate.wait_for(1.0, asyncio.get_running_loop().time())
        if delay < 240.0:
            rate.spend(1.0)
        await asyncio.sleep(min(delay, 15.0))
        return await opens(self, server, client)

    patch.setattr(ServerPool, "_open_own", waits)


def _settings(**given: Any) -> Any:
    from isoproxy.namecoin.electrum.backend import ElectrumSettings

    return ElectrumSettings(**given)


FAULTS: Final[dict[str, tuple[Build, str]]] = {
    "replaced a while later": (replaced_a_while_later, "opened after a use"),
    "newnym closes": (newnym_closes, "ended after newnym"),
    "newnym opens": (newnym_opens, "opened after newnym"),
    "oldest first": (oldest_first, "order of use"),
    "shared connections": (shared_connections, "shared connection"),
    "shared cache": (shared_cache, "same name"),
    "own tip": (own_tip, "height"),
    "common pings": (common_pings, "pings in step"),
    "shared scores": (shared_scores, "told by a server"),
    "shared rate": (shared_rate, "timed by a program"),
}
"""The build, and the classifier that must find it."""


@contextlib.contextmanager
def build(fault: str | None) -> Iterator[None]:
    """The product with a fault, or as it is."""
    with pytest.MonkeyPatch.context() as patch:
        if fault is not None:
            FAULTS[fault][0](patch)
        yield
