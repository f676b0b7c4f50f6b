"""A row for each identity, the busiest first, by label alone."""

from __future__ import annotations

from isoproxy.daemon.status.identities import MAX_IDENTITIES, identities_status
from isoproxy.front.statistics import FlowView
from isoproxy.workers.report import Report
from tests.unit.daemon.status.kit import snapshot, traffic


def flow(key: str, age_s: float = 1.0) -> FlowView:
    return FlowView("default", "relaying", key, age_s, 7, 9)


def test_each_has_its_streams_lookups_and_bytes() -> None:
    flows = [flow("bbbbbb"), flow("bbbbbb", 60.0), flow("aaaaaa"), flow("")]
    shown = snapshot(traffic=traffic(Report(flows=flows)), lookups={"aaaaaa": 2, "cccccc": 1})
    rows = identities_status(shown)
    assert [(row["key"], row["streams"], row["lookups"]) for row in rows] == [
        ("bbbbbb", 2, 0),
        ("aaaaaa", 1, 2),
        ("cccccc", 0, 1),
    ]
    assert rows[0] == {
        "key": "bbbbbb",
        "streams": 2,
        "lookups": 0,
        "bitcoin": 0,
        "bytes_up": 14,
        "bytes_down": 18,
        "age_s": 60.0,
    }


def test_so_many_are_told_of() -> None:
    lookups = {f"{number:06x}": 1 for number in range(MAX_IDENTITIES + 1)}
    assert len(identities_status(snapshot(lookups=lookups))) == MAX_IDENTITIES
