"""Medians, the best peer and the verdicts, on results made up for the purpose."""

from __future__ import annotations

from benchmarks import report
from benchmarks.contenders import Contender, Role

CONTENDERS = [
    Contender("direct", Role.BOUND),
    Contender("microsocks", Role.PEER),
    Contender("go-socks5", Role.PEER),
    Contender("go-socks5, chained", Role.CHAINED),
    Contender("isoproxy", Role.OURS),
]

FOUND: report.Medians = {
    "direct": {"mb_16": 4000.0, "hs_16": 20000.0},
    "microsocks": {"mb_16": 500.0, "cpu_gb_16": 3.0, "hs_16": 7000.0},
    "go-socks5": {"mb_16": 2000.0, "cpu_gb_16": 0.25, "hs_16": 6000.0},
    "go-socks5, chained": {"mb_16": 9000.0, "cpu_gb_16": 0.01},
    "isoproxy": {"mb_16": 2200.0, "cpu_gb_16": 0.2, "hs_16": 4900.0, "p50_added": 41.0},
}


def verdict(key: str) -> report.Verdict:
    judged = report.verdicts(FOUND, CONTENDERS)
    return next(v for v in judged if v.target.key == key)


def test_medians_are_taken_of_the_repetitions_that_have_the_quantity() -> None:
    runs = {"x": [{"mb_1": 1.0, "idle": 5.0}, {"mb_1": 9.0}, {"mb_1": 2.0}]}
    assert report.medians(runs) == {"x": {"mb_1": 2.0, "idle": 5.0}}


def test_best_depends_on_the_direction_of_the_quantity() -> None:
    peers = ["microsocks", "go-socks5"]
    assert report.best(FOUND, "mb_16", peers) == "go-socks5"
    assert report.best(FOUND, "cpu_gb_16", peers) == "go-socks5"
    assert report.best(FOUND, "hs_16", peers) == "microsocks"
    assert report.best(FOUND, "idle", peers) is None


def test_a_ratio_is_taken_to_the_best_direct_peer_and_its_bound_is_inclusive() -> None:
    throughput = verdict("mb_16")
    assert throughput.against == "go-socks5"
    assert throughput.value == 1.1
    assert throughput.met


def test_less_is_better_for_cpu_time() -> None:
    assert verdict("cpu_gb_16").value == 0.8
    assert not verdict("cpu_gb_16").met


def test_handshakes_are_held_against_microsocks_alone() -> None:
    assert verdict("hs_16").against == "microsocks"
    assert verdict("hs_16").value == 0.7
    assert verdict("hs_16").met


def test_an_absolute_target_needs_no_peer() -> None:
    assert verdict("p50_added").value == 41.0
    assert not verdict("p50_added").met


def test_what_was_not_measured_is_not_met_and_says_so() -> None:
    assert verdict("idle").value is None
    assert not verdict("idle").met
    assert "not measured" in report.verdict_table([verdict("idle")])


def test_without_the_peer_a_ratio_is_not_measured() -> None:
    alone = {"isoproxy": FOUND["isoproxy"]}
    judged = {v.target.key: v.value for v in report.verdicts(alone, CONTENDERS)}
    assert judged["mb_16"] is None
    assert judged["p50_added"] == 41.0


def test_tables_are_aligned_and_name_the_peer() -> None:
    table = report.ratio_table(FOUND, CONTENDERS)
    assert "1.10 (go-socks5)" in table
    assert "0.24 (go-socks5, chained)" in table
    assert all(
        line.startswith(("direct", "micro", "go-", "iso", " "))
        for line in report.values_table(FOUND).splitlines()
    )


def test_json_keeps_every_run() -> None:
    runs = {"isoproxy": [{"mb_16": 1.0}, {"mb_16": 3.0}]}
    out = report.as_json(runs, {"pproxy": "no"}, [verdict("idle")], {"cpus": 2})
    assert out["runs"] == runs
    assert out["medians"] == {"isoproxy": {"mb_16": 2.0}}
    assert out["absent"] == {"pproxy": "no"}
    assert out["targets"][0]["met"] is False
