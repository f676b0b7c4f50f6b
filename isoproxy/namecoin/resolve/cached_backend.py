"""A backend's answers, kept for each isolation key, with one look-up for equal questions.

Theory of operation
    `CachedBackend` stands between a resolution and a backend.  A value comes from the
    key's own cache, from a look-up of the same name under the same key that is already
    under way (single-flight), or from the backend.  A new epoch empties the cache and
    ends every look-up under way; a renewal does so for one key.

Invariants
    Nothing crosses between keys: neither cached values nor look-ups under way are
    shared, and no key waits for another here.  A key of an earlier epoch fetches nothing
    and finds nothing.  A failure is not cached.  A look-up for which no client waits any
    more is ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent, Backend, Found
from isoproxy.namecoin.limits import MAX_VALUE_BYTES
from isoproxy.namecoin.resolve.cache import KeyedCache

POSITIVE_S: Final = 600.0
NEGATIVE_S: Final = 60.0
BLOCK_DELAY_S: Final = 60.0
"""After a new block each entry lives on for a random time up to this."""
MAX_IN_FLIGHT: Final = 64
"""Look-ups one key may have under way."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is known of a name's value, until when (s), and whether it was known before."""

    outcome: Found | Absent
    ends: float
    cached: bool


class InFlightLookup:
    """A look-up under way and how many clients wait for it."""

    def __init__(self, key: IsolationKey, name: bytes) -> None:
        self.key: Final = key
        self.name: Final = name
        self.outcome: Final[asyncio.Future[Fetched]] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the clients that wait, if they have no outcome yet."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # that no client waits any more is no defect


class CachedBackend:
    """The answers of `backend`, cached; closing it closes `backend`.

    `values` is the empty cache to use, `clock` gives seconds and never goes back.
    """

    def __init__(
        self,
        backend: Backend,
        isolator: Isolator,
        values: KeyedCache[bytes, Found | Absent],
        clock: Callable[[], float],
    ) -> None:
        self._backend: Final = backend
        self._isolator: Final = isolator
        self._values: Final = values
        self._clock: Final = clock
        self._in_flight: Final[dict[IsolationKey, dict[bytes, InFlightLookup]]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._leave: Final = isolator.on_new_epoch(lambda: self._drop_all(ErrorKind.STALE_KEY))
        self._leave_renewals: Final = isolator.on_renewal(self._drop_stale)

    def __len__(self) -> int:
        """Values in the caches of all keys."""
        return len(self._values)

    async def lookup(self, name: bytes, key: IsolationKey) -> Fetched:
        """What `backend.Backend.lookup` says, now or within the lifetime of its answer.

        Raises:
            NamingError: STALE_KEY, BUSY (too many look-ups of this key are under way),
                NAME_UNVERIFIABLE (no chain has such a value), or as the backend.
        """
        entry = self._values.get(key, name, self._clock())
        if entry is not None:
            return Fetched(entry.value, entry.ends, True)
        if not self._isolator.is_current(key):
            raise NamingError(kind=ErrorKind.STALE_KEY)
        lookup = self._in_flight.get(key, {}).get(name) or self._start(key, name)
        lookup.waiting += 1
        try:
            return await asyncio.shield(lookup.outcome)
        finally:
            lookup.waiting -= 1
            if not lookup.waiting and not lookup.outcome.done():
                self._finish(lookup)
                lookup.outcome.cancel()

    def end_early(self) -> None:
        """Values may be out of date: each ends within BLOCK_DELAY_S, at a random time."""
        self._values.end_early(self._clock(), block_delay)

    async def close(self) -> None:
        """End every look-up under way, and the backend."""
        self._leave()
        self._leave_renewals()
        self._drop_all(ErrorKind.NAME_BACKEND_DOWN)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.close()

    def _start(self, key: IsolationKey, name: bytes) -> InFlightLookup:
        in_flight = self._in_flight.setdefault(key, {})
        if len(in_flight) >= MAX_IN_FLIGHT:
            raise NamingError(kind=ErrorKind.BUSY)
        lookup = in_flight[name] = InFlightLookup(key, name)
        lookup.task = asyncio.create_task(self._run(lookup))
        self._tasks.add(lookup.task)
        lookup.task.add_done_callback(self._tasks.discard)
        return lookup

    async def _run(self, lookup: InFlightLookup) -> None:
        try:
            outcome = await self._backend.lookup(lookup.name, lookup.key)
            if isinstance(outcome, Found) and len(outcome.value) > MAX_VALUE_BYTES:
                raise NamingError(kind=ErrorKind.NAME_UNVERIFIABLE)
        except Exception as error:
            lookup.fail(error)
        else:
            lifetime = POSITIVE_S if isinstance(outcome, Found) else NEGATIVE_S
            ends = self._clock() + lifetime
            if not lookup.outcome.done():
                self._values.put(lookup.key, lookup.name, outcome, ends)
                lookup.outcome.set_result(Fetched(outcome, ends, False))
        finally:
            self._finish(lookup)

    def _finish(self, lookup: InFlightLookup) -> None:
        """Take `lookup` out of the way of the next one, and end it if it still runs."""
        in_flight = self._in_flight.get(lookup.key)
        if in_flight is not None and in_flight.get(lookup.name) is lookup:
            del in_flight[lookup.name]
            if not in_flight:
                del self._in_flight[lookup.key]
        if lookup.task is not None and lookup.task is not asyncio.current_task():
            lookup.task.cancel()

    def _drop_all(self, reason: ErrorKind) -> None:
        self._values.clear()
        for key in tuple(self._in_flight):
            self._end(key, reason)

    def _drop_stale(self) -> None:
        """Some identity has another key: what is of its old one ends."""
        current = self._isolator.is_current
        self._values.keep(current)
        for key in [key for key in self._in_flight if not current(key)]:
            self._end(key, ErrorKind.STALE_KEY)

    def _end(self, key: IsolationKey, reason: ErrorKind) -> None:
        """End every look-up that is under way for `key`."""
        for lookup in tuple(self._in_flight[key].values()):
            lookup.fail(NamingError(kind=reason))
            self._finish(lookup)


_random: Final = random.SystemRandom()


def block_delay() -> float:
    """How long, in s, one entry lives on after a new block."""
    return _random.uniform(0.0, BLOCK_DELAY_S)
