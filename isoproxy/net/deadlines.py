"""Coarse deadlines for many things, without a timer each.

Theory of operation
    A connection's deadline is set and cleared far more often than it is met.  One timer
    looks through all of them once in a while, as long as there are any.

Invariants
    A deadline is met up to one tick late, never early, and forgotten when it is.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Expires(Protocol):
    """What a deadline is set for."""

    def on_deadline(self) -> None:
        """The deadline has passed; it is forgotten, and may be set anew."""


class Deadlines:
    """Deadlines that are looked through every `tick_s` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float = 1.0) -> None:
        self._loop = loop
        self._now = loop.time
        self._tick_s = tick_s
        self._due: dict[Expires, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def set(self, who: Expires, seconds: float) -> None:
        """Call `who.on_deadline()` in `seconds`, in place of an earlier deadline of its."""
        self._due[who] = self._now() + seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def clear(self, who: Expires) -> None:
        self._due.pop(who, None)

    def close(self) -> None:
        """Forget everything."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        for who in [who for who, due in self._due.items() if due <= now]:
            if self._due.pop(who, None) is not None:
                who.on_deadline()
        if self._due and self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)
