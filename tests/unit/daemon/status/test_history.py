"""The last hour: rates, bounded series, and identities whose history ends with them."""

from __future__ import annotations

import json
from typing import Any

from isoproxy.daemon.status.history import MAX_IDENTITIES, PERIOD_S, SAMPLES, SERIES, History
from isoproxy.daemon.status.snapshot import TorView
from isoproxy.errors import ErrorKind
from isoproxy.front.statistics import Counters, FlowView
from isoproxy.tor.control.events import Circuit
from isoproxy.workers.report import Report
from tests.unit.daemon.status.kit import snapshot, traffic

NO_LOOKUPS = (0, 0.0)


def flow(key: str, age_s: float, up: int, down: int) -> FlowView:
    return FlowView("default", "relaying", key, age_s, up, down)


def at(seconds: float, *flows: FlowView, **fields: Any) -> Any:
    counters = fields.pop("counters", Counters())
    shown = traffic(Report(counters, flows=list(flows)))
    return snapshot(uptime_s=seconds, traffic=shown, **fields)


def test_the_first_snapshot_has_no_rate_yet() -> None:
    history = History()
    history.take(at(1), NO_LOOKUPS)
    answer = history.answer()
    assert [answer[name] for name in SERIES] == [[]] * len(SERIES)
    assert answer["period_s"] == PERIOD_S


def test_sums_become_rates_and_times_become_a_mean() -> None:
    history = History()
    history.take(at(0, flow("aaaaaa", 5, 100, 0)), (1, 3.0))
    counters = Counters(bytes_up=300)
    counters.refusals[ErrorKind.DIAL_TIMEOUT] += 2
    circuits = [Circuit("1", "BUILT"), Circuit("2", "LAUNCHED")]
    now = at(10, flow("aaaaaa", 15, 800, 50), counters=counters, circuits=circuits)
    history.take(now, (3, 4.0))
    assert {name: history.answer()[name] for name in SERIES} == {
        "up": [100],
        "down": [5],
        "streams": [1],
        "circuits": [1],
        "lookup_ms": [500.0],
        "refusals": [2],
    }


def test_what_is_not_known_is_none() -> None:
    history = History()
    for second in (0, 10):
        tor = TorView("system", "ready", True, None, "none", False, None)
        history.take(at(second, tor=tor), NO_LOOKUPS)
    assert history.answer()["circuits"] == history.answer()["lookup_ms"] == [None]


def test_an_identity_has_what_its_streams_moved_ended_ones_apart() -> None:
    history = History()
    history.take(at(0, flow("aaaaaa", 90, 1000, 10), flow("aaaaaa", 5, 700, 0)), NO_LOOKUPS)
    # the older has ended, another has begun
    history.take(at(10, flow("aaaaaa", 15, 900, 0), flow("aaaaaa", 2, 50, 30)), NO_LOOKUPS)
    assert history.answer()["identities"] == {"aaaaaa": {"up": [25], "down": [3]}}


def test_a_history_ends_with_its_identity() -> None:
    history = History()
    for second in (0, 10):
        history.take(at(second, flow("aaaaaa", 1, 0, 0), flow("bbbbbb", 1, 0, 0)), NO_LOOKUPS)
    history.forget(lambda label: label == "aaaaaa")
    assert list(json.loads(json.dumps(history.answer()["identities"]))) == ["bbbbbb"]
    history.forget()
    assert history.answer()["identities"] == {}
    assert history.answer()["streams"] == [2]


def test_an_hour_and_so_many_identities_are_all_that_is_kept() -> None:
    history = History()
    for second in range(SAMPLES + 5):
        label = f"{second:06x}"
        history.take(at(second, flow(label, 0.5, 10, 0)), NO_LOOKUPS)
    answer: Any = history.answer()
    assert {len(answer[name]) for name in SERIES} == {SAMPLES}
    assert len(answer["identities"]) == MAX_IDENTITIES


def test_no_identity_that_is_at_work_makes_room_for_another() -> None:
    history = History()
    first = [flow(f"{number:06x}", 1, 0, 0) for number in range(MAX_IDENTITIES)]
    history.take(at(0, *first), NO_LOOKUPS)
    history.take(at(10, *first), NO_LOOKUPS)
    history.take(at(20, *first, flow("ffffff", 1, 0, 0)), NO_LOOKUPS)
    assert "ffffff" not in str(history.answer())
    history.take(at(30, flow("ffffff", 1, 0, 0)), NO_LOOKUPS)
    assert "ffffff" in str(history.answer())


def test_an_identity_that_moved_nothing_for_an_hour_is_gone() -> None:
    history = History()
    for second in range(SAMPLES + 2):
        history.take(at(second, *([flow("aaaaaa", 0.5, 0, 0)] if second == 1 else [])), NO_LOOKUPS)
    assert history.answer()["identities"] == {}
