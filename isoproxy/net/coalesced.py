"""Work of which one run serves all who asked for it before that run began.

Theory of operation
    A run waits until the one before it is over.  All that are asked for meanwhile are one:
    it begins after the last of them was asked for, so it finds what each of them was
    meant to find.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class Coalesced(Generic[_Result]):
    """Runs `work` once at a time; see the module's theory of operation."""

    def __init__(self, work: Callable[[], Awaitable[_Result]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[_Result] | None = None
        self._tasks: set[asyncio.Task[_Result]] = set()

    async def run(self) -> _Result:
        """The result of a run that begins after this call; raises what it raises."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._in_turn())
            self._tasks.add(self._waiting)
            self._waiting.add_done_callback(self._tasks.discard)
        return await asyncio.shield(self._waiting)

    async def close(self) -> None:
        """End the runs under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _in_turn(self) -> _Result:
        async with self._turn:
            self._waiting = None
            return await self._work()
