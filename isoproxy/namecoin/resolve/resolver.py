"""From a `.bit` name to an address, under one isolation key.

Theory of operation
    One resolution has one key and one deadline, and gets its values from the cached
    backend.  Finished answers are kept here: `lookup_cached` finds those without a
    coroutine.  A new epoch forgets them.

Invariants
    Nothing crosses between keys.  A failure that may pass is cached nowhere.  No failure
    turns into an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Backend, Found
from isoproxy.namecoin.resolve.answer import NameAnswer, Policy, Status, Want
from isoproxy.namecoin.resolve.cache import PER_KEY, TOTAL, KeyedCache
from isoproxy.namecoin.resolve.cached_backend import CachedBackend, block_delay
from isoproxy.namecoin.resolve.resolution import Resolution
from isoproxy.namecoin.value.domain import Node
from isoproxy.namecoin.value.name import BitName

DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Zone:
    """Every name that a value speaks of, parents first, and where the value came from."""

    found: Found
    nodes: list[Node]

    def as_json(self) -> dict[str, object]:
        """The object that `isoproxy resolve --records --json` prints."""
        return {
            "value": self.found.value.decode("utf-8", "backslashreplace"),
            "height": self.found.height,
            "expires_in": self.found.expires_in,
            "txid": self.found.txid,
            "evidence": self.found.evidence.value,
            "servers": list(self.found.servers),
            "names": [
                {
                    "name": node.owner,
                    "records": [
                        {"type": rdata.rdtype.name, "data": rdata.to_text()}
                        for rdatas in node.records.rdatas.values()
                        for rdata in rdatas
                    ],
                    "tor": node.records.tor,
                    "i2p": node.records.i2p,
                    "problems": node.records.problems,
                }
                for node in self.nodes
                if not node.records.is_empty or node.records.problems
            ],
        }


class Resolver:
    """Resolves names through `backend`; see the module's theory of operation.

    `per_key` and `total` bound the values that are cached, and as many answers; `clock`
    gives seconds and never goes back; `on_evicted()` is called for each key whose values
    or answers had to make room.
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
        self._isolator: Final = isolator
        self._policy: Final = policy or Policy()
        self._deadline_s: Final = deadline_s
        self._clock: Final = clock
        self._backend: Final = CachedBackend(
            backend,
            isolator,
            KeyedCache(per_key=per_key, total=total, on_evicted=on_evicted),
            clock,
        )
        self._answers: Final[KeyedCache[tuple[BitName, Want], NameAnswer]] = KeyedCache(
            per_key=per_key, total=total, on_evicted=on_evicted
        )
        self._leave: Final = isolator.on_new_epoch(self._answers.clear)
        self._leave_renewals: Final = isolator.on_renewal(
            lambda: self._answers.keep(isolator.is_current)
        )

    @property
    def cached(self) -> int:
        """Values and answers in the caches of all keys."""
        return len(self._backend) + len(self._answers)

    def lookup_cached(
        self, name: BitName, key: IsolationKey, want: Want = Want.STREAM
    ) -> NameAnswer | None:
        """A finished answer of this key's that still counts, at once; else None."""
        entry = self._answers.get(key, (name, want), self._clock())
        return None if entry is None else entry.value

    async def resolve(
        self, name: BitName, key: IsolationKey, want: Want = Want.STREAM
    ) -> NameAnswer:
        """The answer for `name` under `key`; failures are answers too."""
        known = self.lookup_cached(name, key, want)
        if known is not None:
            return known
        try:
            async with self.resolution(key) as resolution:
                answer = await resolution.resolve(name, want)
        except NamingError as error:
            return NameAnswer.failure(str(name), error)
        if answer.status is not Status.FAILED and self._isolator.is_current(key):
            self._answers.put(key, (name, want), answer.from_cache(), resolution.ends)
        return answer

    async def zone(self, name: BitName, key: IsolationKey) -> Zone:
        """All that the value of `name`'s base name says.

        Raises NamingError: the value cannot be had, does not exist or cannot be read.
        """
        async with self.resolution(key) as resolution:
            nodes = await resolution.zone(name)
            return Zone(await resolution.found(name), nodes)

    @contextlib.asynccontextmanager
    async def resolution(self, key: IsolationKey) -> AsyncIterator[Resolution]:
        """One resolution under `key`: one budget, and one deadline for the whole block.

        Raises NamingError (NAME_TIMEOUT) out of the block.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                yield Resolution(self._backend, key, self._policy)
        except TimeoutError:
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None

    def block_arrived(self) -> None:
        """The backend's chain has a new block: what is cached may soon be out of date."""
        self._backend.end_early()
        self._answers.end_early(self._clock(), block_delay)

    async def close(self) -> None:
        """End every look-up under way, and the backend."""
        self._leave()
        self._leave_renewals()
        self._answers.clear()
        await self._backend.close()
