"""Linkability: what an operator of name servers can tell of whose connections are whose.

    python -m tests.fire.linkability --hours 24 --seed 1

Theory of operation
    `operator` runs clients at default settings, for hours on a virtual clock, with and
    without new identities; `classifiers` know the source and try to tell which connections
    are one client's.  Sample size and seeds are fixed before the run.

    The product as it is must be at chance: every p-value above LEVEL after Bonferroni's
    correction for the number of classifiers and runs.  Each build with a fault (`mutant`)
    must be found by its classifier, at the same size, at FOUND: a classifier that finds
    nothing in a broken build is worth nothing.

    TLS is not part of it: that every ClientHello is alike and nothing is resumed is held by
    tests/unit/namecoin/electrum/test_tls.py.  Nor are restarts, which end all connections of a
    client at one moment (docs/threat-model.md, "What is not promised").
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any, Final

from tests.fire.classifiers import CLASSIFIERS
from tests.fire.mutant import FAULTS, build
from tests.fire.operator import Record, watch

LEVEL: Final = 0.05
FOUND: Final = 0.001
HOURS: Final = 24.0
RUNS: Final = ((2, True), (2, False), (8, True), (8, False))
"""(clients, whether they ask for new identities)"""


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
    print(f"linkability: {options.hours:g} hours, --seed {options.seed}", flush=True)
    level = LEVEL / (len(CLASSIFIERS) * len(RUNS))
    reports: dict[str, Any] = {"seed": options.seed, "hours": options.hours, "level": level}
    right = True
    for clients, newnym in RUNS:
        record = watch(clients, options.seed, options.hours, newnym=newnym)
        p = judged(record, options.seed)
        name = f"{clients} clients, {'with' if newnym else 'without'} new identities"
        found = sorted(one for one in p if p[one] < level)
        reports[name] = {"p": p, "found": found, "figures": figures(record)}
        right &= not found
        print(f"{name}: found {found}\n{json.dumps(reports[name])}", flush=True)
    for fault, (_, classifier) in FAULTS.items() if options.faults else ():
        with build(fault):
            record = watch(2, options.seed, options.hours, newnym=True)
        p = judged(record, options.seed)
        reports[fault] = {"p": p, "wanted": classifier}
        right &= p[classifier] < FOUND
        print(f"{fault}: {classifier} p = {p[classifier]}\n{json.dumps(p)}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    reports["right"] = right
    (options.out / "linkability.json").write_text(json.dumps(reports, indent=1) + "\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
