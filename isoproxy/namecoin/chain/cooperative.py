"""Cooperative execution of work whose size a remote peer chooses.

Theory of operation
    A function with such work is a generator.  It yields wherever other work may have its
    turn, a few milliseconds apart, and returns its result.  `run_cooperatively` awaits the
    result on an event loop; `finish` computes it without a pause.

Invariants
    Nothing here knows a clock or a loop: the size of a step is counted in items.
"""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Cooperative = Generator[None, None, T]
"""Work whose result is a T, each step of it a few milliseconds at most."""


def finish(steps: Cooperative[T]) -> T:
    """The result, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


@types.coroutine
def run_cooperatively(steps: Cooperative[T]) -> Cooperative[T]:
    """Await the result; after each step the event loop's other work has its turn."""
    return (yield from steps)
