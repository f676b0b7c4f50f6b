"""An event loop whose clock jumps: timeouts of minutes pass in no time.

When nothing is ready to run, the loop does not sleep until the next timer: it moves its
own clock there.  Work that is under way in the kernel (a socket pair, a pipe) is given a
real moment first, so tests may use real descriptors on this machine; they must not wait
for another program.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable

_GRACE_S = 0.002


class _JumpingSelector(selectors.DefaultSelector):
    """Turns a wait with a timeout into a jump of the clock."""

    def __init__(self, grace_s: float) -> None:
        super().__init__()
        self._grace_s = grace_s
        self.jump: Callable[[float], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, self._grace_s))
        if not ready:
            self.jump(timeout)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """A selector loop whose `time()` starts at 0 s and jumps to the next timer.

    `grace_s` is what work in the kernel is given, in s; 0 where there is none.
    """

    def __init__(self, grace_s: float = _GRACE_S) -> None:
        selector = _JumpingSelector(grace_s)
        super().__init__(selector)
        self._now = 0.0
        selector.jump = self._jump

    def time(self) -> float:
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds
