"""The last hour is taken every few seconds, and ends with the identities."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.status.history import PERIOD_S
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.front.statistics import FlowView
from isoproxy.isolation import Isolator
from isoproxy.observe.metrics import Metrics
from isoproxy.workers.report import Report
from tests.unit.daemon.status.kit import snapshot, traffic


@pytest.mark.virtual_clock(grace_s=0)
async def test_a_sample_every_period_with_the_lookups_of_the_metrics() -> None:
    isolator, metrics, loop = Isolator(), Metrics(), asyncio.get_running_loop()
    flows = [FlowView("default", "relaying", key, 1, 0, 0) for key in ("aaaaaa", "bbbbbb")]
    began = loop.time()

    async def now(*, circuits: bool = False) -> Snapshot:
        assert circuits
        metrics.name_seconds.of(backend="electrum").observe(2.0)
        return snapshot(uptime_s=loop.time() - began, traffic=traffic(Report(flows=flows)))

    kept = KeptHistory(now, isolator, metrics)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PERIOD_S * 2.5):
            await kept.run()
    answer: Any = kept.answer()
    assert answer["lookup_ms"] == [2000.0, 2000.0]
    assert answer["identities"].keys() == {"aaaaaa", "bbbbbb"}
    isolator.renew("aaaaaa")
    assert kept.answer()["identities"] == {"bbbbbb": {"up": [0, 0], "down": [0, 0]}}
    isolator.new_epoch()
    assert kept.answer()["identities"] == {}
