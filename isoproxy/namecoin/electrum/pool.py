"""Connections to Electrum servers: born and ended by clocks that know nothing of use.

Theory of operation
    The pool keeps a *reserve* of connections, dialled on circuits of their own (each under
    a key nobody else has), handshaken, unused.  They are opened by a Poisson process, each
    at a server that a new key might ask, and each draws at birth, from an exponential
    distribution, how long it will live.  Neither rate knows what was taken: what is taken
    is not replaced, and nothing ends for not being used.

    The first look-up of an isolation key at a server takes one of the reserve, any of them
    with the same chance, and keeps it: the connection is *bound* to that key until its life
    is over; a look-up under way finishes first.  The key's next look-up binds another one.
    Where there is none, the look-up opens a connection for itself, with a life of its own:
    that tells its server of this key alone.  How large the reserve has to be so that
    identities do not notice each other by it: docs/decisions/0100-reserve.md.

    A new epoch unbinds everything, and opens and closes nothing.  What carried a name
    carries none any more and ends when it would have ended.  What carried none serves the
    new epoch: to close it would show its servers, at one moment, what is one client's.
    A renewal does this for the connections of one key.

    Each connection is pinged at random intervals below the time after which servers drop
    silent clients.

Invariants
    * A session carries the look-ups of one key, or none.  It is in exactly one place: in the
      reserve, bound, unbound for good, or reserved for our own headers.
    * When a session of the reserve begins and ends, and when one is pinged, depends on
      random numbers and on its server, never on what another session is used for.
    * A client can hold as many sessions, of the reserve and beside it, as it leaves to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import DialError, ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.chain.params import ChainParams
from isoproxy.namecoin.electrum.connector import Dials, Opener, SpeaksTls
from isoproxy.namecoin.electrum.rate_limit import ClientRates, FairShare
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import MAX_SYNC_LINE, ElectrumSession, ServerRefused
from isoproxy.namecoin.electrum.wire import AnswerTooLong

OPENINGS_PER_HOUR: Final = 54.0
"""With the headers' connections that is below 60 new circuits an hour at rest."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`reserve` is the mean number of connections that are open while nobody uses any.

    A new key asks `asked` servers.  `own_life` is the mean life in s of what a look-up opens
    for itself; there are `max_own` of them, and `opens_per_minute` for each client.  `wait`
    and `open_timeout` are s, `ping_after` the limits of a uniform distribution, in s.
    """

    reserve: int = 96
    openings_per_hour: float = OPENINGS_PER_HOUR
    asked: int = 2
    own_life: float = 900.0
    max_own: int = 256
    opens_per_minute: int = 60
    wait: float = 20.0
    open_timeout: float = 45.0
    ping_after: tuple[float, float] = (200.0, 450.0)

    @property
    def life(self) -> float:
        """The mean life of a connection that our clocks opened, in s."""
        return max(self.reserve, 1) * 3600.0 / self.openings_per_hour


class ServerPool:
    """See the module's text.  `run` must be running for the reserve to fill; `rng` is what
    its clocks are drawn from."""

    def __init__(
        self,
        dialer: Dials,
        isolator: Isolator,
        network: ChainParams,
        scores: Scores,
        tls: SpeaksTls,
        settings: PoolSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._isolator = isolator
        self.scores = scores
        self.settings = settings = settings or PoolSettings()
        self._opener = Opener(dialer, isolator, network, tls, settings.open_timeout)
        self._open: dict[ElectrumSession, asyncio.TimerHandle] = {}
        self._reserve: dict[str, list[ElectrumSession]] = {s.label: [] for s in scores.servers}
        self._bound: dict[tuple[IsolationKey, str], ElectrumSession] = {}
        self._binding: dict[tuple[IsolationKey, str], asyncio.Task[ElectrumSession]] = {}
        self._upkeep: set[ElectrumSession] = set()
        self._taken: dict[ElectrumSession, tuple[bytes, str]] = {}
        self._own = FairShare(settings.max_own)
        self._rates = ClientRates(settings.opens_per_minute)
        self._tasks: set[asyncio.Task[None]] = set()
        self._rng = rng or random.SystemRandom()
        self._closed = False
        self.last_failure: ErrorKind | None = None
        """Why the newest connection that our clocks opened did not come about."""
        self._leave = isolator.on_new_epoch(self.unbind_all)
        self._leave_renewals = isolator.on_renewal(self.unbind_stale)

    # -- for look-ups ----------------------------------------------------------

    def servers_of(self, key: IsolationKey) -> list[str]:
        """Labels of the servers that have a connection bound to `key`."""
        return [
            label
            for (owner, label), session in self._bound.items()
            if owner == key and session.is_usable
        ]

    def round_trips(self, key: IsolationKey) -> list[float]:
        """How long the handshakes of the connections bound to `key` took, in s."""
        return [
            session.round_trip
            for (owner, _), session in self._bound.items()
            if owner == key and session.is_usable
        ]

    async def session(self, key: IsolationKey, server: NameServer) -> ElectrumSession:
        """The connection to `server` bound to `key`; binds one at first use.

        Waits `settings.wait` s at most.  Raises DialError, BUSY if the key's client has its
        share, and RemoteProtocolError for a server that is of no use.
        """
        self._require_current(key)
        place = (key, server.label)
        bound = self._bound.get(place)
        if bound is not None and bound.is_usable:
            return bound
        binding = self._binding.get(place)
        if binding is None:
            binding = asyncio.get_running_loop().create_task(self._bind(key, server))
            self._binding[place] = binding
            binding.add_done_callback(lambda task: self._bound_or_not(place, task))
        return await asyncio.shield(binding)

    async def _bind(self, key: IsolationKey, server: NameServer) -> ElectrumSession:
        session = self._take(server, key.client) or await self._open_own(server, key.client)
        self._require_current(key)
        self._bound[key, server.label] = session
        return session

    def _bound_or_not(
        self, place: tuple[IsolationKey, str], task: asyncio.Task[ElectrumSession]
    ) -> None:
        del self._binding[place]
        if not task.cancelled():
            task.exception()

    def _take(self, server: NameServer, client: bytes) -> ElectrumSession | None:
        """One of the reserve, unless `client` has much of it and as many here as are left."""
        here, left = self._reserve[server.label], sum(map(len, self._reserve.values()))
        mine = [label for owner, label in self._taken.values() if owner == client]
        if not here or (2 * len(mine) >= left and mine.count(server.label) >= len(here)):
            return None
        session = here.pop(self._rng.randrange(len(here)))
        self._taken[session] = client, server.label
        return session

    async def _open_own(self, server: NameServer, client: bytes) -> ElectrumSession:
        """A connection that the reserve cannot give, at `client`'s expense."""
        now = asyncio.get_running_loop().time()
        delay = self._rates.wait_for(client, now)
        if delay > self.settings.wait or not self._own.take(client):
            raise DialError(kind=ErrorKind.BUSY)
        self._rates.spend(client, now)
        try:
            async with asyncio.timeout(self.settings.wait):
                await asyncio.sleep(delay)
                session = await self._opener.open(server, client)
        except TimeoutError:
            self._own.give_back(client)
            raise DialError(kind=ErrorKind.DIAL_TIMEOUT) from None
        except BaseException:
            self._own.give_back(client)
            raise
        self._admit(session, self.settings.own_life, lambda: self._own.give_back(client))
        return session

    def drop(self, key: IsolationKey, server: NameServer) -> None:
        """Close the connection to `server` that is bound to `key`, if there is one."""
        bound = self._bound.pop((key, server.label), None)
        if bound is not None:
            bound.close()

    def unbind(self, key: IsolationKey) -> None:
        """Have nothing bound to `key` any more; what was ends when it would have ended."""
        for place in [place for place in self._bound if place[0] == key]:
            del self._bound[place]

    def unbind_stale(self) -> None:
        """Have nothing bound to a key that is over, as `unbind`."""
        for key in {key for key, _ in self._bound if not self._isolator.is_current(key)}:
            self.unbind(key)

    def unbind_all(self) -> None:
        """Have nothing bound to any key any more."""
        self._bound.clear()

    # -- for our own headers -------------------------------------------------------

    async def reserve(self, server: NameServer) -> ElectrumSession:
        """A new connection for our own upkeep alone, which lives as long as others do."""
        session = await self._opened_by_clock(server)
        session.allow_long_answers(MAX_SYNC_LINE)
        self._upkeep.add(session)
        self._admit(session, self.settings.life, lambda: self._upkeep.discard(session))
        return session

    # -- clocks ------------------------------------------------------------------

    def counts(self) -> tuple[int, int, int]:
        """How many connections are in the reserve, bound, and for upkeep."""
        return sum(map(len, self._reserve.values())), len(self._bound), len(self._upkeep)

    async def run(self) -> None:
        """Open connections by the clock, until cancelled."""
        rate = self.settings.openings_per_hour / 3600.0
        try:
            while True:
                await asyncio.sleep(self._rng.expovariate(rate))
                if self.settings.reserve:
                    self._open_one()
        finally:
            await self.close()

    def _open_one(self) -> None:
        """Begin to open one connection of the reserve, where a new key might ask."""
        now = asyncio.get_running_loop().time()
        server = self._rng.choice(self.scores.choose(now)[: self.settings.asked])
        if self.scores.is_due(server, now):
            task = asyncio.get_running_loop().create_task(self._fill(server))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fill(self, server: NameServer) -> None:
        with contextlib.suppress(IsoproxyError):
            session = await self._opened_by_clock(server)
            reserve = self._reserve[server.label]
            reserve.append(session)

            def gone() -> None:
                if self._taken.pop(session, None) is None:
                    reserve.remove(session)

            self._admit(session, self.settings.life, gone)

    async def _opened_by_clock(self, server: NameServer) -> ElectrumSession:
        """A new connection; whether it came about is known to all keys."""
        clock = asyncio.get_running_loop().time
        try:
            session = await self._opener.open(server)
        except IsoproxyError as error:
            self.last_failure = error.kind
            if is_breach(error):
                self.scores.record_invalid_proof(server, clock())
            elif error.kind is not ErrorKind.STALE_KEY:
                self.scores.failed(server, clock())
            raise
        self.last_failure = None
        self.scores.answered(server, 0.0, clock())
        return session

    def _admit(self, session: ElectrumSession, life: float, gone: Callable[[], None]) -> None:
        """Have `session` pinged, and ended when the life that it draws is over; then `gone()`."""
        loop = asyncio.get_running_loop()

        def closed() -> None:
            self._open.pop(session).cancel()
            ending.cancel()
            self._bound = {place: one for place, one in self._bound.items() if one is not session}
            gone()

        def ping() -> None:
            session.ping()
            if not session.closed.is_set():
                self._open[session] = loop.call_later(
                    self._rng.uniform(*self.settings.ping_after), ping
                )

        ending = loop.call_later(self._rng.expovariate(1.0 / life), session.end)
        self._open[session] = loop.call_later(self._rng.uniform(*self.settings.ping_after), ping)
        session.on_closed = closed
        if session.closed.is_set():
            closed()

    async def close(self) -> None:
        """Close every connection; look-ups that wait for one fail."""
        self._closed = True
        self._leave()
        self._leave_renewals()
        tasks = [*self._tasks, *self._binding.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sessions = list(self._open)
        for session in sessions:
            session.close()
        self._bound.clear()
        for session in sessions:
            await session.wait_closed()

    def _require_current(self, key: IsolationKey) -> None:
        if self._closed:
            raise DialError(kind=ErrorKind.NAME_BACKEND_DOWN)
        if not self._isolator.is_current(key):
            raise DialError(kind=ErrorKind.STALE_KEY)


def is_breach(error: IsoproxyError) -> bool:
    """True if the server broke the protocol, rather than being down, busy or in a hurry."""
    return isinstance(error, RemoteProtocolError) and not isinstance(
        error, ServerRefused | AnswerTooLong
    )
