"""From a `.bit` name to an address, under one isolation key.

Theory of operation
    One resolution has one key and one deadline.  The value of a name comes from the
    key's own cache, from a look-up of the same name under the same key that is already
    under way, or from the backend.  Finished answers are cached as well: `lookup_cached`
    finds those without a coroutine.  A new epoch empties the caches and ends every
    look-up under way.

Invariants
    Nothing crosses between keys: neither cached values nor look-ups under way are
    shared, and no key waits for another here.  A key of an earlier epoch fetches nothing
    and finds nothing.  A failure that may pass is cached nowhere.  No failure turns into
    an address.  A look-up nobody waits for any more is ended.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from isoproxy.errors import ErrorKind, IsoproxyError, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import MAX_VALUE_BYTES, Absent, Backend, Found
from isoproxy.namecoin.resolve.answer import NameAnswer, Policy, Status, Want
from isoproxy.namecoin.resolve.cache import PER_KEY, TOTAL, KeyedCache
from isoproxy.namecoin.resolve.resolution import Fetched, Resolution
from isoproxy.namecoin.value.domain import Node
from isoproxy.namecoin.value.name import BitName

DEADLINE_S: Final = 60.0
POSITIVE_S: Final = 600.0
NEGATIVE_S: Final = 60.0
BLOCK_DELAY_S: Final = 60.0
"""After a new block each entry lives on for a random time up to this."""
MAX_FLIGHTS: Final = 64
"""Look-ups one key may have under way."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Zone:
    """Every name that a value speaks of, parents first, and where the value came from."""

    found: Found
    nodes: list[Node]


class _Flight:
    """A look-up under way and those who wait for it."""

    def __init__(self, key: IsolationKey, name: bytes) -> None:
        self.key: Final = key
        self.name: Final = name
        self.outcome: Final[asyncio.Future[Fetched]] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0

    def fail(self, error: BaseException) -> None:
        """Tell those who wait, if they have not been told yet."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # it is no defect if nobody waits any more


class Resolver:
    """Resolves names through `backend`; see the module's theory of operation.

    `clock` gives seconds and never goes back; `on_evicted()` is called for each key whose
    values or answers had to make room.
    """

    def __init__(
        self,
        backend: Backend,
        isolator: Isolator,
        *,
        policy: Policy | None = None,
        deadline_s: float = DEADLINE_S,
        per_key: int = PER_KEY,
        total: int = TOTAL,
        clock: Callable[[], float] = time.monotonic,
        on_evicted: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend: Final = backend
        self._isolator: Final = isolator
        self._policy: Final = policy or Policy()
        self._deadline_s: Final = deadline_s
        self._clock: Final = clock
        self._values: Final[KeyedCache[bytes, Found | Absent]] = KeyedCache(
            per_key=per_key, total=total, on_evicted=on_evicted
        )
        self._answers: Final[KeyedCache[tuple[BitName, Want], NameAnswer]] = KeyedCache(
            per_key=per_key, total=total, on_evicted=on_evicted
        )
        self._flights: Final[dict[IsolationKey, dict[bytes, _Flight]]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._random: Final = random.SystemRandom()
        self._leave: Final = isolator.on_new_epoch(lambda: self._drop_all(ErrorKind.STALE_KEY))

    @property
    def cached(self) -> int:
        """Entries in the caches of all keys."""
        return len(self._values) + len(self._answers)

    def lookup_cached(
        self, name: bytes | str, key: IsolationKey, want: Want = Want.STREAM
    ) -> NameAnswer | None:
        """A finished answer of this key's that still counts, at once; else None."""
        try:
            subject = (BitName.parse(name), want)
        except IsoproxyError:
            return None
        entry = self._answers.get(key, subject, self._clock())
        return None if entry is None else entry.value

    async def resolve(
        self, name: bytes | str, key: IsolationKey, want: Want = Want.STREAM
    ) -> NameAnswer:
        """The answer for `name` under `key`; failures are answers too.

        Raises:
            PolicyRefusal: NAME_SYNTAX, `name` is not a host name under `bit`.
        """
        try:
            wanted = BitName.parse(name)
        except NamingError as error:
            written = name if isinstance(name, str) else name.decode("ascii", "replace")
            return NameAnswer.failure(written, error.kind)
        entry = self._answers.get(key, (wanted, want), self._clock())
        if entry is not None:
            return entry.value
        resolution = self._resolution(key)
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await resolution.resolve(wanted, want)
        except TimeoutError:
            return NameAnswer.failure(str(wanted), ErrorKind.NAME_TIMEOUT)
        if answer.status is not Status.FAILED and self._isolator.is_current(key):
            self._answers.put(key, (wanted, want), answer.from_cache(), resolution.ends)
        return answer

    async def look_at(self, name: bytes | str, key: IsolationKey) -> tuple[Node, Found]:
        """What the value says about exactly `name`; aliases are not followed.

        Raises:
            PolicyRefusal: NAME_SYNTAX.
            NamingError: the value cannot be had, does not exist or cannot be read.
        """
        wanted = BitName.parse(name)
        resolution = self._resolution(key)
        node = await self._in_time(resolution.look_at(wanted))
        return node, await resolution.found(wanted)

    async def zone(self, name: bytes | str, key: IsolationKey) -> Zone:
        """All that the value of `name`'s base name says; raises as `look_at`."""
        wanted = BitName.parse(name)
        resolution = self._resolution(key)
        nodes = await self._in_time(resolution.zone(wanted))
        return Zone(await resolution.found(wanted), nodes)

    async def explore(
        self, key: IsolationKey, visit: Callable[[Resolution], Coroutine[Any, Any, _T]]
    ) -> _T:
        """What `visit` finds on one resolution under `key`: one budget, one deadline.

        Raises NamingError as `look_at`.
        """
        return await self._in_time(visit(self._resolution(key)))

    def block_arrived(self) -> None:
        """The backend's chain has a new block: what is cached may soon be out of date."""
        now = self._clock()
        self._values.end_early(now, self._block_delay)
        self._answers.end_early(now, self._block_delay)

    def forget(self, key: IsolationKey) -> None:
        """Free what is cached under `key`."""
        self._values.forget(key)
        self._answers.forget(key)

    async def close(self) -> None:
        """End every look-up under way, and the backend."""
        self._leave()
        self._drop_all(ErrorKind.NAME_BACKEND_DOWN)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.close()

    def _resolution(self, key: IsolationKey) -> Resolution:
        return Resolution(lambda name: self._fetch(name, key), key, self._policy)

    async def _in_time(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await work
        except TimeoutError:
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None

    def _block_delay(self) -> float:
        return self._random.uniform(0.0, BLOCK_DELAY_S)

    async def _fetch(self, name: bytes, key: IsolationKey) -> Fetched:
        entry = self._values.get(key, name, self._clock())
        if entry is not None:
            return Fetched(entry.value, entry.ends, True)
        if not self._isolator.is_current(key):
            raise NamingError(kind=ErrorKind.STALE_KEY)
        flight = self._flights.get(key, {}).get(name) or self._take_off(key, name)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.outcome)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.outcome.done():
                self._land(flight)
                flight.outcome.cancel()

    def _take_off(self, key: IsolationKey, name: bytes) -> _Flight:
        flights = self._flights.setdefault(key, {})
        if len(flights) >= MAX_FLIGHTS:
            raise NamingError(kind=ErrorKind.BUSY)
        flight = flights[name] = _Flight(key, name)
        flight.task = asyncio.create_task(self._fly(flight))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(self, flight: _Flight) -> None:
        try:
            outcome = await self._backend.lookup(flight.name, flight.key)
            if isinstance(outcome, Found) and len(outcome.value) > MAX_VALUE_BYTES:
                raise NamingError(kind=ErrorKind.NAME_UNVERIFIABLE)
        except Exception as error:
            flight.fail(error)
        else:
            lifetime = POSITIVE_S if isinstance(outcome, Found) else NEGATIVE_S
            ends = self._clock() + lifetime
            if not flight.outcome.done():
                self._values.put(flight.key, flight.name, outcome, ends)
                flight.outcome.set_result(Fetched(outcome, ends, False))
        finally:
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        """Take `flight` out of the way of the next look-up, and end it if it still flies."""
        flights = self._flights.get(flight.key)
        if flights is not None and flights.get(flight.name) is flight:
            del flights[flight.name]
            if not flights:
                del self._flights[flight.key]
        if flight.task is not None and flight.task is not asyncio.current_task():
            flight.task.cancel()

    def _drop_all(self, reason: ErrorKind) -> None:
        self._values.clear()
        self._answers.clear()
        for flights in tuple(self._flights.values()):
            for flight in tuple(flights.values()):
                flight.fail(NamingError(kind=reason))
                self._land(flight)
