"""From measurements to tables: medians, ratios against the best peer, targets met or not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.contenders import Contender, Role
from benchmarks.measuring import Results


@dataclass(frozen=True)
class Column:
    """One measured quantity."""

    key: str
    heading: str
    digits: int
    more_is_better: bool


COLUMNS: Final = [
    Column("mb_1", "MB/s 1", 0, True),
    Column("mb_16", "MB/s 16", 0, True),
    Column("cpu_gb_1", "CPU-s/GB 1", 2, False),
    Column("cpu_gb_16", "CPU-s/GB 16", 2, False),
    Column("hs_1", "hs/s 1", 0, True),
    Column("hs_16", "hs/s 16", 0, True),
    Column("cpu_hs_16", "CPU us/hs 16", 0, False),
    Column("p50", "RTT p50 us", 1, False),
    Column("p99", "RTT p99 us", 1, False),
    Column("p50_added", "added p50 us", 1, False),
    Column("p50_added_one_core", "one core", 1, False),
    Column("idle", "kB/idle", 2, False),
    Column("idle_slope", "kB/idle slope", 2, False),
]
_BY_KEY: Final = {column.key: column for column in COLUMNS}


@dataclass(frozen=True)
class Target:
    """A bound on `key`: of the value itself, of its ratio to the best peer, or to one peer."""

    key: str
    text: str
    bound: float
    at_least: bool
    against: str | None  # None: absolute; "best": the best peer; otherwise a peer's name


TARGETS: Final = [
    Target("mb_16", "throughput at 16, x best peer", 1.1, True, "best"),
    Target("cpu_gb_16", "CPU per GB at 16, x best peer", 0.7, False, "best"),
    Target("idle", "kB per idle connection", 3.0, False, None),
    Target("hs_16", "handshakes/s at 16, x microsocks", 0.65, True, "microsocks"),
    Target("p50_added", "added round trip p50, us", 40.0, False, None),
]


@dataclass(frozen=True)
class Verdict:
    """A target held against one of our rows; `value` is None where it was not measured."""

    contender: str
    target: Target
    against: str | None
    value: float | None

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        if self.target.at_least:
            return self.value >= self.target.bound
        return self.value <= self.target.bound


Medians = dict[str, Results]


def medians(runs: Mapping[str, Sequence[Results]]) -> Medians:
    """Per contender and quantity, the median of the repetitions that have it."""
    return {
        name: {
            column.key: statistics.median(run[column.key] for run in results if column.key in run)
            for column in COLUMNS
            if any(column.key in run for run in results)
        }
        for name, results in runs.items()
    }


def best(found: Medians, key: str, names: Iterable[str]) -> str | None:
    """Which of `names` is best at `key`; None when none has it."""
    having = [name for name in names if key in found.get(name, {})]
    if not having:
        return None
    pick = max if _BY_KEY[key].more_is_better else min
    return pick(having, key=lambda name: found[name][key])


def verdicts(found: Medians, contenders: Sequence[Contender]) -> list[Verdict]:
    """Every target against every row of ours that was measured."""
    peers = [c.name for c in contenders if c.role is Role.PEER]
    return [
        _verdict(found, c.name, target, peers)
        for c in contenders
        if c.role is Role.OURS and c.name in found
        for target in TARGETS
    ]


def _verdict(found: Medians, name: str, target: Target, peers: Sequence[str]) -> Verdict:
    value = found[name].get(target.key)
    if target.against is None or value is None:
        return Verdict(name, target, None, value)
    other = best(found, target.key, peers) if target.against == "best" else target.against
    base = found.get(other, {}).get(target.key) if other else None
    return Verdict(name, target, other, value / base if base else None)


def values_table(found: Medians) -> str:
    """Contenders downwards, quantities across."""
    rows = [["", *(column.heading for column in COLUMNS)]]
    for name, results in found.items():
        rows.append([name, *(_number(results.get(c.key), c.digits) for c in COLUMNS)])
    return aligned(rows)


def ratio_table(found: Medians, contenders: Sequence[Contender]) -> str:
    """Each of our rows over the best peer, and over the best chained peer, for each quantity."""
    ours = [c.name for c in contenders if c.role is Role.OURS and c.name in found]
    rows = [["", *(f"{name} / {kind}" for name in ours for kind in ("best peer", "best chained"))]]
    for column in COLUMNS:
        if column.key.startswith("p50_added"):  # may be near zero: a ratio says nothing
            continue
        row = [column.heading]
        for name in ours:
            for role in (Role.PEER, Role.CHAINED):
                names = [c.name for c in contenders if c.role is role]
                row.append(_ratio(found, name, column.key, best(found, column.key, names)))
        rows.append(row)
    return aligned(rows)


def verdict_table(judged: Sequence[Verdict]) -> str:
    rows = [["", "target", "bound", "measured", ""]]
    for v in judged:
        sign = ">=" if v.target.at_least else "<="
        text = v.target.text if v.target.against != "best" else f"{v.target.text} ({v.against})"
        state = "met" if v.met else "not met" if v.value is not None else "not measured"
        rows.append([v.contender, text, f"{sign} {v.target.bound:g}", _number(v.value, 2), state])
    return aligned(rows)


def as_json(
    runs: Mapping[str, Sequence[Results]],
    absent: Mapping[str, str],
    judged: Sequence[Verdict],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything: each repetition, not only the medians."""
    return {
        "machine": dict(machine),
        "medians": medians(runs),
        "runs": {name: list(results) for name, results in runs.items()},
        "absent": dict(absent),
        "targets": [
            {
                "contender": v.contender,
                "target": v.target.text,
                "bound": v.target.bound,
                "at_least": v.target.at_least,
                "against": v.against,
                "value": v.value,
                "met": v.met,
            }
            for v in judged
        ],
    }


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _ratio(found: Medians, name: str, key: str, other: str | None) -> str:
    value = found[name].get(key)
    base = found[other].get(key) if other else None
    if value is None or not base:
        return "-"
    return f"{value / base:.2f} ({other})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
