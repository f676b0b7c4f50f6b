"""How long to wait before the next attempt: doubling, bounded, and jittered.

Theory of operation
    The n-th wait is drawn evenly from the upper half of `[0, initial * 2**n]`, never
    more than `maximum`: many programs that lost the same tor do not come back together,
    and none of them waits less than half of what is due.
"""

from __future__ import annotations

import random
from collections.abc import Callable

_JITTER = random.SystemRandom()


class Backoff:
    """A sequence of waits in seconds; `reset` begins it anew after a success."""

    def __init__(
        self,
        initial: float,
        maximum: float,
        *,
        jitter: Callable[[float, float], float] = _JITTER.uniform,
    ) -> None:
        assert 0 < initial <= maximum
        self._initial = initial
        self._maximum = maximum
        self._jitter = jitter
        self._ceiling = initial

    def next(self) -> float:
        """The wait before the next attempt."""
        ceiling = self._ceiling
        self._ceiling = min(self._maximum, ceiling * 2)
        return self._jitter(ceiling / 2, ceiling)

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._ceiling = self._initial
