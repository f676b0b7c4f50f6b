"""Whether Tor answers: noticed when it changes, told to the log and to those who depend on it.

The end of the control connection is heard at once; without one, the SocksPort is tried now
and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.observe.log import logger

HEALTH_S: Final = 10.0
"""Seconds between two looks at a Tor that answers; a tenth of it at one that does not."""

_log = logger("daemon")


class TorHealth:
    """`on_change` is called whenever `answers` has changed, the first time included."""

    def __init__(self, upstream: Upstream, on_change: Callable[[], None]) -> None:
        self._upstream = upstream
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._answers: bool | None = None
        self._advice: str | None = None
        upstream.on_change(self._changed.set)

    @property
    def answers(self) -> bool:
        """Whether Tor's SocksPort answered last time."""
        return bool(self._answers)

    def _advise(self) -> None:
        """Tell the log, once, what a person can do about a start that does not get on."""
        advice = self._upstream.advice
        if advice is not None and advice != self._advice:
            _log.warn("tor_does_not_come_up", advice=advice)
        self._advice = advice

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self._changed.clear()
            answers = await self._upstream.answers()
            if answers != self._answers:
                self._answers = answers
                (_log.notice if answers else _log.warn)(
                    "tor_answers" if answers else "tor_does_not_answer",
                    state=self._upstream.describe(),
                )
                self._on_change()
            self._advise()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_S if answers else HEALTH_S / 10):
                    await self._changed.wait()
