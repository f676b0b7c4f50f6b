"""Rows of the terminal view: sorted, filtered, and without names."""

from __future__ import annotations

from typing import Any

from isoproxy.cli.watch_rows import COLUMNS, Order, identity_rows, rates, scale, stream_rows


def identity(label: str, streams: int, up: int = 0, **more: Any) -> dict[str, Any]:
    dull = {"lookups": 0, "bitcoin": 0, "bytes_down": 0, "age_s": 5.0}
    return {"key": label, "streams": streams, "bytes_up": up, **dull, **more}


def flow(label: str, listener: str = "default", **more: Any) -> dict[str, Any]:
    dull = {"state": "relaying", "circuits": ["7"], "age_s": 61.0, "bytes_up": 1, "bytes_down": 2}
    return {"key": label, "listener": listener, "target": "marked.test:80", **dull, **more}


def status(*identities: dict[str, Any], flows: Any = (), **more: Any) -> dict[str, Any]:
    dull = {
        "uptime_s": 10.0,
        "scrubbed": True,
        "relays": {"7": ["guard", "ABCD1234"]},
        "counters": {"bytes_up": 0, "bytes_down": 0},
    }
    return {**dull, "identities": list(identities), "flows": list(flows), **more}


def labels(answer: dict[str, Any], order: Order, wanted: str = "") -> list[str]:
    return [row[0] for row in identity_rows(answer, None, order, wanted)]


def test_they_are_sorted_by_any_column_and_equals_by_label() -> None:
    answer = status(identity("cc", 1, 30), identity("aa", 2, 10), identity("bb", 2, 20))
    order = Order()
    assert labels(answer, order) == ["aa", "bb", "cc"]
    assert labels(answer, order.reversed()) == ["cc", "aa", "bb"]
    assert labels(answer, Order(COLUMNS.index("Up"))) == ["cc", "bb", "aa"]
    for _ in COLUMNS:
        order = order.next()
    assert order == Order()
    assert str(order) == "streams ↓"


def test_a_filter_looks_at_labels_and_listeners() -> None:
    answer = status(identity("aa", 1), identity("bb", 1), flows=[flow("bb", "workstations")])
    assert labels(answer, Order(), "WORK") == ["bb"]
    assert labels(answer, Order(), "a") == ["aa", "bb"][:1] + labels(answer, Order(), "bb")
    assert labels(answer, Order(), "zz") == []


def test_rates_are_since_the_last_answer() -> None:
    before = status(identity("aa", 1, 100))
    now = status(identity("aa", 1, 5100), uptime_s=15.0, counters={"bytes_up": 10, "bytes_down": 5})
    (row,) = identity_rows(now, before, Order())
    assert dict(zip(COLUMNS, row, strict=True))["Up/s"] == "1.0 kB/s"
    assert rates(now, before) == (2.0, 1.0)
    assert rates(now, None) == rates(before, now) == (0.0, 0.0)


def test_streams_are_the_identitys_own_and_tell_no_name() -> None:
    answer = status(flows=[flow("aa"), flow("bb"), flow("aa", circuits=[], state="opening")])
    assert stream_rows(answer, "aa") == [
        ("relaying", "7", "guard → ABCD1234", "default", "1 min", "1 B", "2 B", "-"),
        ("opening", "-", "-", "default", "1 min", "1 B", "2 B", "-"),
    ]
    assert stream_rows({**answer, "scrubbed": False}, "bb")[0][-1] == "marked.test:80"


def test_a_trickle_is_seen_beside_a_flood() -> None:
    assert list(scale([0, 100, 10000])) == [0, 10, 100]
