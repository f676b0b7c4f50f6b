"""Linkability: what an operator of name servers can tell of whose connections are whose.

    python -m tests.fire.linkability --hours 48 --seed 1

Theory of operation
    `operator` runs clients at default settings, for hours on a virtual clock, with and
    without new identities and restarts; `classifiers` know the source and try to tell which
    connections are one client's.  `hellos` does the same with TLS, which the virtual clock
    leaves out.  Sample size and seeds are fixed before the run.

    The product as it is must be at chance: every p-value above LEVEL after Bonferroni's
    correction for the number of classifiers and runs.  Each build with a fault (`mutant`,
    `hellos.FAULTS`) must be found by its classifier, at the size of the smallest run, at
    FOUND: a classifier that finds nothing in a broken build is worth nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.fire import hellos
from tests.fire.classifiers import CLASSIFIERS
from tests.fire.mutant import FAULTS, build
from tests.fire.operator import Record, watch

LEVEL: Final = 0.05
FOUND: Final = 0.001
HOURS: Final = 48.0
"""Of all clients of a run together, after the warm-up; eight clients get twice as many."""


@dataclass(frozen=True)
class Run:
    """So many clients, and whether they ask for new identities and are started anew."""

    clients: int
    newnym: bool
    restarts: bool = False

    def __str__(self) -> str:
        newnym = "with" if self.newnym else "without"
        restarts = ", with restarts" if self.restarts else ""
        return f"{self.clients} clients, {newnym} new identities{restarts}"

    def watch(self, seed: int, hours: float) -> Record:
        """`hours` are those of all clients together."""
        each = hours / self.clients * (2.0 if self.clients > 2 else 1.0)
        return watch(self.clients, seed, each, newnym=self.newnym, restarts=self.restarts)


RUNS: Final = (
    Run(2, newnym=True),
    Run(2, newnym=False),
    Run(2, newnym=True, restarts=True),
    Run(8, newnym=True),
    Run(8, newnym=False),
)


def judged(record: Record, seed: int) -> dict[str, float]:
    """The p-value of each classifier."""
    return {
        name: round(classifier(record, random.Random(f"{seed} {name}")), 5)
        for name, classifier in CLASSIFIERS.items()
    }


def figures(record: Record) -> dict[str, Any]:
    """Sizes of the sample, and what it cost."""
    first = sorted(use.took for use in record.uses if use.is_first)
    warm = sorted(use.took for use in record.uses if not use.is_first)
    uses = record.first_uses
    cold = sum(one.at - one.connection.opened < 3.0 for one in uses)
    hours = (record.until - record.warm_up) / 3600.0
    opened = sum(record.warm_up < seen.opened < record.until for seen in record.connections)
    return {
        "look-ups": len(record.uses),
        "connections bound": len(uses),
        "of these, opened for it": cold,
        "new identities": len(record.new_identities),
        "denials": len(record.withheld),
        "circuits per client and hour": round(opened / hours / record.clients, 1),
        "first look-up, median s": round(first[len(first) // 2], 3),
        "later look-up, median s": round(warm[len(warm) // 2], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.linkability")
    parser.add_argument("--hours", type=float, default=HOURS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(".cache/fire/linkability"))
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    hours, seed = options.hours, options.seed
    print(f"linkability: {hours:g} hours, --seed {seed}", flush=True)
    level = LEVEL / ((len(CLASSIFIERS) + 1) * len(RUNS))
    reports: dict[str, Any] = {"seed": seed, "hours": hours, "level": level}
    right = True
    for run in RUNS:
        record = run.watch(seed, hours)
        p = judged(record, seed) | {"TLS": hellos.judged(run.clients, seed)}
        found = sorted(one for one in p if p[one] < level)
        reports[str(run)] = {"p": p, "found": found, "figures": figures(record)}
        right &= not found
        print(f"{run}: found {found}\n{json.dumps(reports[str(run)])}", flush=True)
    for fault, (p, wanted) in _faults(seed, hours) if options.faults else ():
        reports[fault] = {"p": p, "wanted": wanted}
        right &= p[wanted] < FOUND
        print(f"{fault}: {wanted} p = {p[wanted]}\n{json.dumps(p)}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    reports["right"] = right
    (options.out / "linkability.json").write_text(json.dumps(reports, indent=1) + "\n")
    return 0 if right else 1


def _faults(seed: int, hours: float) -> Iterator[tuple[str, tuple[dict[str, float], str]]]:
    """What is found in each build with a fault, and the classifier that has to find it."""
    for fault, (_, wanted) in FAULTS.items():
        with build(fault):
            record = RUNS[0].watch(seed, hours)
        yield fault, (judged(record, seed), wanted)
    for fault in hellos.FAULTS:
        yield fault, ({"TLS": hellos.judged_with(fault, 2, seed)}, "TLS")


if __name__ == "__main__":
    sys.exit(main())
