"""Connections to Electrum servers: opened ahead, bound to one key, never shared.

Theory of operation
    For every server that is due the pool keeps a few *clean* connections: dialled on
    circuits of their own (each under a key nobody else has), handshaken, unused.  The
    first look-up of an isolation key at a server takes a clean one and keeps it: the
    connection is *bound* to that key until it ends.  An empty pool makes a look-up wait,
    up to a deadline, while one more is opened; it does not fail.

    Clean connections exist before anybody asks, and one that a key has taken is replaced
    a random while later; so when they are opened says nothing about who asks when, and
    does not tie the replacement's first key to the key before.  Nor are several opened to
    one server at once, unless as many wait for them.  All are pinged at random
    intervals below the time after which servers drop silent clients, each when it is due:
    common rounds would show which connections belong together.  For the same reason each
    bound connection that nobody uses ends at a time of its own, and the one unused longest
    not at once when there are too many.  New circuits are limited per minute.

    A new epoch makes all there is useless: nobody can have a key again that something is
    bound to, and what carries no name is closed.  Bound connections end as if they were
    not used any more; if they ended together, their servers would know whose were one
    client's, just when that client wants to be another.

Invariants
    * A session is in exactly one place: clean, bound to one key, or reserved for our own
      header synchronisation.  It moves from clean to another place once.
    * No dial without a key of the current epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import DialError, ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.chain.params import ChainParams
from isoproxy.namecoin.electrum.connector import Dials, Opener
from isoproxy.namecoin.electrum.rate_limit import OpenRate
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import Server
from isoproxy.namecoin.electrum.session import MAX_SYNC_LINE, ElectrumSession, ServerRefused
from isoproxy.namecoin.electrum.tls import TlsPolicy
from isoproxy.namecoin.electrum.wire import AnswerTooLong

_LEAST_LIFE_S: Final = 5.0
"""A bound connection is not closed to make room before it can have been used."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`clean` connections are kept per server, for the best `clean_servers` servers.

    Times in s, `refill_after` is a mean, `unused_after` give or take a tenth.
    `opens_per_minute` limits new circuits, `burst` of them may come at once.
    """

    clean: int = 2
    clean_servers: int = 4
    max_bound: int = 128
    opens_per_minute: float = 60.0
    burst: int = 16
    wait: float = 20.0
    open_timeout: float = 45.0
    refill_after: float = 30.0
    ping_after: tuple[float, float] = (200.0, 450.0)
    unused_after: float = 900.0


@dataclass(eq=False, slots=True)
class _Slot:
    """What the pool holds for one server; look-ups in `queue` wait for a session."""

    server: Server
    clean: deque[ElectrumSession] = field(default_factory=deque)
    queue: deque[asyncio.Future[ElectrumSession]] = field(default_factory=deque)
    opening: int = 0
    owed: list[float] = field(default_factory=list)  # when what was taken may be replaced


def _fail(slot: _Slot, error: IsoproxyError, count: int) -> None:
    """Let some of those who wait for this server turn to another one."""
    for _ in range(min(count, len(slot.queue))):
        waiter = slot.queue.popleft()
        if not waiter.done():
            waiter.set_exception(DialError(kind=error.kind))


@dataclass(eq=False, slots=True)
class _Bound:
    session: ElectrumSession
    used_at: float
    ends_at: float
    must_go: bool = False  # to make room


class ServerPool:
    """See the module's text.  `run` must be running for anything to be opened."""

    def __init__(
        self,
        dialer: Dials,
        isolator: Isolator,
        network: ChainParams,
        scores: Scores,
        tls: TlsPolicy,
        settings: PoolSettings | None = None,
    ) -> None:
        self._isolator = isolator
        self.scores = scores
        self.settings = settings or PoolSettings()
        self._opener = Opener(dialer, isolator, network, tls, self.settings.open_timeout)
        self._slots = {server.label: _Slot(server) for server in scores.servers}
        self._bound: OrderedDict[tuple[IsolationKey, str], _Bound] = OrderedDict()
        self._binding: dict[tuple[IsolationKey, str], asyncio.Task[ElectrumSession]] = {}
        self._reserved: set[ElectrumSession] = set()
        self._ping_at: dict[ElectrumSession, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._rng = random.SystemRandom()
        self._rate: OpenRate | None = None
        self._closed = False
        self._leave = isolator.on_new_epoch(self.drop_nameless)

    # -- for look-ups ----------------------------------------------------------

    def servers_of(self, key: IsolationKey) -> list[str]:
        """Labels of the servers that have a live connection bound to `key`."""
        return [
            label
            for (owner, label), bound in self._bound.items()
            if owner == key and not bound.session.closed.is_set()
        ]

    async def session(self, key: IsolationKey, server: Server) -> ElectrumSession:
        """The connection to `server` bound to `key`; binds a clean one at first use.

        Waits `settings.wait` s at most.  Raises DialError.
        """
        self._require_current(key)
        now = asyncio.get_running_loop().time()
        place = (key, server.label)
        bound = self._bound.get(place)
        if bound is not None and not bound.session.closed.is_set():
            bound.used_at, bound.ends_at, bound.must_go = now, self._end_of_use(now), False
            self._bound.move_to_end(place)
            return bound.session
        binding = self._binding.get(place)
        if binding is None:
            binding = asyncio.get_running_loop().create_task(self._bind(key, server))
            self._binding[place] = binding
            binding.add_done_callback(lambda task: self._bound_or_not(place, task))
        return await asyncio.shield(binding)

    async def _bind(self, key: IsolationKey, server: Server) -> ElectrumSession:
        session = await self._take_clean(server, self._a_while())
        if not self._isolator.is_current(key):
            session.close()
            raise DialError(kind=ErrorKind.STALE_KEY)
        now = asyncio.get_running_loop().time()
        self._bound[key, server.label] = _Bound(session, now, self._end_of_use(now))
        self._wake.set()
        return session

    def _a_while(self) -> float:
        """The s after which nobody can tell what something was the consequence of."""
        return random.expovariate(1.0) * self.settings.refill_after

    def _end_of_use(self, now: float) -> float:
        """When a connection used `now` is closed if it is not used again."""
        return now + self.settings.unused_after * self._rng.uniform(0.9, 1.1)

    def _bound_or_not(
        self, place: tuple[IsolationKey, str], task: asyncio.Task[ElectrumSession]
    ) -> None:
        del self._binding[place]
        if not task.cancelled():
            task.exception()

    async def reserve(self, server: Server) -> ElectrumSession:
        """A connection for our own upkeep alone; end it with `release`."""
        session = await self._take_clean(server)
        session.allow_long_answers(MAX_SYNC_LINE)
        self._reserved.add(session)
        return session

    def release(self, session: ElectrumSession) -> None:
        """Close a reserved connection."""
        self._reserved.discard(session)
        session.close()

    def drop(self, key: IsolationKey, server: Server) -> None:
        """Close the connection to `server` that is bound to `key`, if there is one."""
        bound = self._bound.pop((key, server.label), None)
        if bound is not None:
            bound.session.close()

    def forget(self, key: IsolationKey) -> None:
        """Close all that is bound to `key`."""
        for place in [place for place in self._bound if place[0] == key]:
            self._bound.pop(place).session.close()

    def drop_nameless(self) -> None:
        """Close the connections that carry no name: clean ones, and those of our upkeep.

        New ones are not opened right behind them, which would tie the next epoch's first
        key at a server to those that were there before.
        """
        now = asyncio.get_running_loop().time()
        for slot in self._slots.values():
            for session in slot.clean:
                session.close()
            slot.clean.clear()
            slot.owed = [now + self._a_while() for _ in range(self.settings.clean)]
        for session in self._reserved:
            session.close()
        self._reserved.clear()
        self._wake.set()

    def _drop_bound(self) -> None:
        for bound in self._bound.values():
            bound.session.close()
        self._bound.clear()

    def nudge(self) -> None:
        """Look now for what is due."""
        self._wake.set()

    def counts(self) -> tuple[int, int, int]:
        """How many connections are clean, bound and reserved."""
        clean = sum(len(slot.clean) for slot in self._slots.values())
        return clean, len(self._bound), len(self._reserved)

    # -- upkeep ------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the pool filled, pinged and small; runs until cancelled."""
        try:
            while True:
                self._wake.clear()
                delay = self._tend(asyncio.get_running_loop().time())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._wake.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close every connection; waiting look-ups fail."""
        self._closed = True
        self._leave()
        sessions = list(self._sessions())
        self.drop_nameless()
        self._drop_bound()
        for slot in self._slots.values():
            _fail(slot, DialError(kind=ErrorKind.NAME_BACKEND_DOWN), len(slot.queue))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._binding.values(), return_exceptions=True)
        for session in sessions:
            await session.wait_closed()

    def _require_current(self, key: IsolationKey) -> None:
        if self._closed:
            raise DialError(kind=ErrorKind.NAME_BACKEND_DOWN)
        if not self._isolator.is_current(key):
            raise DialError(kind=ErrorKind.STALE_KEY)

    def _sessions(self) -> Iterator[ElectrumSession]:
        for slot in self._slots.values():
            yield from slot.clean
        for bound in self._bound.values():
            yield bound.session
        yield from self._reserved

    async def _take_clean(self, server: Server, refill_after: float = 0.0) -> ElectrumSession:
        slot = self._slots[server.label]
        while slot.clean:
            session = slot.clean.popleft()
            if not session.closed.is_set():
                slot.owed.append(asyncio.get_running_loop().time() + refill_after)
                self._wake.set()
                return session
        waiter: asyncio.Future[ElectrumSession] = asyncio.get_running_loop().create_future()
        slot.queue.append(waiter)
        self._wake.set()
        try:
            async with asyncio.timeout(self.settings.wait):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as reason:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_over(slot, waiter.result())
            if isinstance(reason, TimeoutError):
                raise DialError(kind=ErrorKind.DIAL_TIMEOUT) from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                slot.queue.remove(waiter)

    def _hand_over(self, slot: _Slot, session: ElectrumSession) -> None:
        while slot.queue:
            waiter = slot.queue.popleft()
            if not waiter.done():
                waiter.set_result(session)
                return
        slot.clean.append(session)

    def _tend(self, now: float) -> float:
        """Do what is due; returns the s until something may be due again."""
        if self._rate is None:
            self._rate = OpenRate(self.settings.opens_per_minute, self.settings.burst, now)
        self._ping(now)
        self._close_unused(now)
        ends = (bound.ends_at for bound in self._bound.values())
        delay = min([15.0, *(due - now for due in (*self._ping_at.values(), *ends))])
        for slot in self._slots.values():
            slot.clean = deque(s for s in slot.clean if not s.closed.is_set())
            slot.owed = [due for due in slot.owed if due > now]
            delay = min([delay, *(due - now for due in slot.owed)])
        for slot in self._in_order(now):
            missing = self._missing(slot, now)
            later = max(0, missing - max(1, len(slot.queue)))
            slot.owed += [now + self._a_while() for _ in range(later)]
            for _ in range(missing - later):
                wait = self._rate.take(now)
                if wait > 0:
                    return min(delay, wait)
                self._open(slot)
        dues = [self.scores.of(slot.server).retry_at - now for slot in self._slots.values()]
        return max(0.05, min([delay, *(due for due in dues if due > 0)]))

    def _in_order(self, now: float) -> list[_Slot]:
        """Slots that somebody waits for first, then by rank."""
        ranked = [self._slots[server.label] for server in self.scores.choose(now)]
        return sorted(ranked, key=lambda slot: not slot.queue)

    def _missing(self, slot: _Slot, now: float) -> int:
        if not self.scores.is_due(slot.server, now):
            return 0 if not slot.queue or slot.opening else 1
        favoured = [server.label for server in self.scores.choose(now)]
        is_favoured = slot.server.label in favoured[: self.settings.clean_servers]
        ahead = self.settings.clean - len(slot.owed) if is_favoured else 0
        wanted = len(slot.queue) + max(0, ahead)
        return max(0, wanted - len(slot.clean) - slot.opening)

    def _open(self, slot: _Slot) -> None:
        slot.opening += 1
        task = asyncio.get_running_loop().create_task(self._connect(slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, slot: _Slot) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            session = await self._opener.open(slot.server)
        except IsoproxyError as error:
            if error.kind is ErrorKind.STALE_KEY:
                return  # the epoch changed meanwhile: no fault of the server's
            is_breach = isinstance(error, RemoteProtocolError) and not isinstance(
                error, ServerRefused | AnswerTooLong
            )
            (self.scores.record_invalid_proof if is_breach else self.scores.failed)(
                slot.server, loop.time()
            )
            _fail(slot, error, len(slot.queue) if is_breach or slot.opening == 1 else 1)
        else:
            self.scores.answered(slot.server, min(loop.time() - began, 2.0))
            self._ping_at[session] = loop.time() + self._rng.uniform(*self.settings.ping_after)
            self._hand_over(slot, session)
        finally:
            slot.opening -= 1
            self._wake.set()

    def _ping(self, now: float) -> None:
        alive = {session for session in self._sessions() if not session.closed.is_set()}
        self._ping_at = {s: due for s, due in self._ping_at.items() if s in alive}
        for session, due in self._ping_at.items():
            if now >= due:
                session.ping()
                self._ping_at[session] = now + self._rng.uniform(*self.settings.ping_after)

    def _close_unused(self, now: float) -> None:
        excess = len(self._bound) - self.settings.max_bound
        for number, (place, bound) in enumerate(list(self._bound.items())):
            if number < excess and not bound.must_go and now - bound.used_at > _LEAST_LIFE_S:
                bound.must_go = True
                bound.ends_at = min(bound.ends_at, now + self._a_while())
            if bound.ends_at <= now and bound.session.busy:
                bound.ends_at = now + self._a_while()
            if bound.session.closed.is_set() or bound.ends_at <= now:
                del self._bound[place]
                bound.session.close()
