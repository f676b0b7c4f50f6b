"""The front end against other SOCKS5 servers: `python -m benchmarks.front`.

Contenders take turns, repetition by repetition, each freshly started, on loopback only; the
tables hold medians.  See README.md for what each column is and how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import ALL, DIRECT, Contender, Role
from benchmarks.measuring import Load, LoadError, Results, measure
from benchmarks.programs import AbsentError
from benchmarks.running import FarEnd, StartError, far_end, free_address, proxy


class Benchmark:
    """Runs contenders in turn and collects what they showed."""

    def __init__(self, contenders: Sequence[Contender], end: FarEnd, seconds: float) -> None:
        self._waiting = list(contenders)
        self._end = end
        self._seconds = seconds
        self.runs: dict[str, list[Results]] = {}
        self.absent: dict[str, str] = {}

    def repeat(self) -> None:
        """One more run of each contender that has not dropped out."""
        for contender in list(self._waiting):
            try:
                results = self._run(contender)
            except (AbsentError, StartError, LoadError) as error:
                self.absent[contender.name] = str(error)
                self._waiting.remove(contender)
            else:
                self.runs.setdefault(contender.name, []).append(results)

    def _run(self, contender: Contender) -> Results:
        direct = Load(self._end.base_port, None)
        if contender.command is None:
            address = self._end.socks if contender.socks_layer else None
            load = Load(self._end.base_port, address)
            return measure(load, direct, server=self._end.pid, proxy=None, seconds=self._seconds)
        listen = free_address()
        load = Load(self._end.base_port, f"{listen[0]}:{listen[1]}", contender.distinct)
        with proxy(contender.command(listen, self._end), listen) as pid:
            load.run("setup", count=50)  # warm
            return measure(load, direct, server=self._end.pid, proxy=pid, seconds=self._seconds)


def machine() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    contenders = _chosen(options.only)
    facts = machine()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        far_end(Path(directory)) as end,
    ):
        benchmark = Benchmark(contenders, end, options.seconds)
        for number in range(options.repetitions):
            print(f"repetition {number + 1} of {options.repetitions}", file=sys.stderr)
            benchmark.repeat()
    judged = report.verdicts(report.medians(benchmark.runs), contenders)
    if options.json:
        print(json.dumps(report.as_json(benchmark.runs, benchmark.absent, judged, facts), indent=1))
    else:
        _print_tables(benchmark, contenders, judged, facts)
    all_met = bool(judged) and all(v.met for v in judged)
    return 0 if all_met or not options.strict else 1


def _print_tables(
    benchmark: Benchmark,
    contenders: Sequence[Contender],
    judged: Sequence[report.Verdict],
    facts: dict[str, Any],
) -> None:
    found = report.medians(benchmark.runs)
    print("  ".join(f"{key} {value}" for key, value in facts.items()), end="\n\n")
    print(report.values_table(found), end="\n\n")
    if judged:
        print("isoproxy over the best peer (more is better for MB/s and hs/s, else less)")
        print(report.ratio_table(found, contenders), end="\n\n")
        print(report.verdict_table(judged), end="\n\n")
    for name, reason in benchmark.absent.items():
        print(f"absent: {name}: {reason}")


def _chosen(only: Sequence[str] | None) -> list[Contender]:
    if not only:
        return ALL
    return [c for c in ALL if c is DIRECT or c.name in only or c.role.value in only]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.front", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load (default 2)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"a contender or a kind; may be repeated: {', '.join(c.name for c in ALL)}; "
        f"{', '.join(role.value for role in Role)}",
    )
    parser.add_argument("--json", action="store_true", help="print all runs as JSON")
    parser.add_argument("--strict", action="store_true", help="exit 1 unless all targets are met")
    return parser


if __name__ == "__main__":
    sys.exit(main())
