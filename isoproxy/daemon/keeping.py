"""Keeps the last hour for whoever opens the dashboard.

Theory of operation
    Only where there is a dashboard: a snapshot costs every stream process a report.  What is
    kept is `status.history`; this asks for snapshots and ends identities with their keys.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from isoproxy.daemon.status.history import PERIOD_S, History
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.isolation import Isolator
from isoproxy.observe.metrics import Metrics


class Snapshots(Protocol):
    """Makes a snapshot of now, as `Daemon.snapshot`."""

    async def __call__(self, *, circuits: bool = False) -> Snapshot: ...


class KeptHistory:
    """What is there so far; `run` adds to it until it is cancelled."""

    def __init__(self, snapshot: Snapshots, isolator: Isolator, metrics: Metrics) -> None:
        self._snapshot: Final = snapshot
        self._metrics: Final = metrics
        self._history: Final = History()
        isolator.on_new_epoch(self._history.forget)
        isolator.on_renewal(lambda: self._history.forget(isolator.is_over))

    async def run(self) -> None:
        """A sample every `PERIOD_S`."""
        while True:
            self._history.take(await self._snapshot(circuits=True), self._lookups())
            await asyncio.sleep(PERIOD_S)

    def answer(self) -> dict[str, object]:
        """As `History.answer`."""
        return self._history.answer()

    def _lookups(self) -> tuple[int, float]:
        """How many look-ups ended since the start, and the seconds they took."""
        times = list(self._metrics.name_seconds.children())
        return sum(sum(time.counts) for time in times), sum(time.total for time in times)
