"""Reloads one after the other: the last one that was asked for is the last to be applied.

Theory of operation
    A reload waits until the one before it is over, the stream processes' answers included:
    an address that one reload gives up is free before the next one may want it.  All that
    are asked for meanwhile are one: it reads the configuration when its turn comes, so
    it finds what the latest of them was meant to apply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_LIVE: Final = ("listener", "limits", "names", "bitcoin.", "observe.log_",
                "observe.safe_logging")  # fmt: skip
"""Beginnings of the keys that a reload applies; others wait for a restart."""
_SETTLED: Final = frozenset({"limits.workers", "limits.max_pending_circuits"})
"""Keys among them that wait for a restart all the same."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Keys whose values a reload found changed, and those of them that wait for a restart."""

    changed: tuple[str, ...]
    after_a_restart: tuple[str, ...]

    @classmethod
    def of(cls, changed: tuple[str, ...]) -> Reloaded:
        """What is to be told of `changed` keys."""
        waiting = (key for key in changed if key in _SETTLED or not key.startswith(_LIVE))
        return cls(changed, tuple(waiting))


class Reloads:
    """Runs `apply` once at a time; see the module's theory of operation."""

    def __init__(self, apply: Callable[[], Awaitable[Reloaded]]) -> None:
        self._apply = apply
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[Reloaded] | None = None
        self._tasks: set[asyncio.Task[Reloaded]] = set()

    async def run(self) -> Reloaded:
        """What a reload that begins after this call has found; raises what it raises."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._in_turn(), name="reload")
            self._tasks.add(self._waiting)
            self._waiting.add_done_callback(self._tasks.discard)
        return await asyncio.shield(self._waiting)

    async def close(self) -> None:
        """End the reloads under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _in_turn(self) -> Reloaded:
        async with self._turn:
            self._waiting = None
            return await self._apply()
