"""Waiting for something to become true, without a clock of one's own in every test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_POLL_S = 0.002


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `condition()` is true; it is an error if that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for _ in iter(lambda: bool(condition()), True):
        assert loop.time() < deadline, "it did not happen in time"
        await asyncio.sleep(_POLL_S)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """The same for tests without a loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(_POLL_S)
