"""Metrics: closed labels, the text form, the names that users' dashboards rely on."""

from __future__ import annotations

import re

import pytest

from isoproxy.observe.metrics import Histogram, Metrics

SAMPLE = re.compile(r"[a-z_0-9]+(\{([a-z_]+=\"[^\"\n\\]*\",?)+\})? [0-9.e+-]+")


def test_every_name_of_the_reference_is_there() -> None:
    text = Metrics(["default"]).exposition()
    for name in (
        "isoproxy_build_info", "isoproxy_connections", "isoproxy_handshakes_total",
        "isoproxy_requests_total", "isoproxy_dial_seconds", "isoproxy_relay_bytes_total",
        "isoproxy_isolation_keys", "isoproxy_isolation_evictions_total", "isoproxy_names_total",
        "isoproxy_name_seconds", "isoproxy_name_cache_entries", "isoproxy_name_cache_hits_total",
        "isoproxy_name_cache_misses_total", "isoproxy_v2_sessions_total", "isoproxy_control_up",
        "isoproxy_upstream_up", "isoproxy_policy_refusals_total",
    ):  # fmt: skip
        assert f"# TYPE {name} " in text, name


def test_the_text_form() -> None:
    metrics = Metrics(["default"])
    relayed = metrics.relay_bytes.of(direction="up", path="splice")
    relayed.value += 5
    relayed.value += 6
    metrics.connections.of(listener="default", state="opening").value -= 1
    metrics.upstream_up.value = 1
    lines = metrics.exposition().splitlines()
    assert 'isoproxy_relay_bytes_total{direction="up",path="splice"} 11' in lines
    assert 'isoproxy_connections{listener="default",state="opening"} -1' in lines
    assert "isoproxy_upstream_up 1" in lines
    for line in lines:
        assert line.startswith("# ") or SAMPLE.fullmatch(line), line


def test_a_child_is_made_once() -> None:
    metrics = Metrics()
    assert metrics.names.of(backend="electrum", outcome="ok") is metrics.names.of(
        outcome="ok", backend="electrum"
    )


@pytest.mark.parametrize(
    "labels",
    [
        {"listener": "marked.onion", "state": "opening"},
        {"listener": "default", "state": "marked"},
        {"listener": "default"},
        {"listener": "default", "state": "opening", "host": "marked"},
    ],
)
def test_a_label_takes_values_of_its_set_alone(labels: dict[str, str]) -> None:
    metrics = Metrics(["default"])
    with pytest.raises(ValueError, match="isoproxy_connections") as caught:
        metrics.connections.of(**labels)
    assert "marked" not in str(caught.value) + metrics.exposition()


def test_a_reload_may_add_listeners() -> None:
    metrics = Metrics(["default"])
    metrics.listeners.add("work-2")
    metrics.connections.of(listener="work-2", state="relaying").value += 1
    assert 'listener="work-2"' in metrics.exposition()
    with pytest.raises(ValueError, match="letters"):
        metrics.listeners.add('x"} 1\n')


def test_histogram_buckets_are_cumulative_and_include_their_bound() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.01, 0.3, 1000.0):
        histogram.observe(seconds)
    samples = {extra or suffix: number for suffix, extra, number in histogram.samples()}
    assert samples['le="0.01"'] == 2
    assert samples['le="0.25"'] == 2
    assert samples['le="0.5"'] == 3
    assert samples['le="+Inf"'] == samples["_count"] == 4
    assert samples["_sum"] == pytest.approx(1000.311)


@pytest.mark.parametrize(("live", "shown"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_the_number_of_identities_is_rounded_up(live: int, shown: int) -> None:
    metrics = Metrics()
    metrics.count_isolation_keys(lambda: live)
    assert f"isoproxy_isolation_keys {shown}\n" in metrics.exposition()
