"""What isoproxy adds to Tor's own SocksPort: `python -m benchmarks.tor`.

A private Tor network of tests/kit runs on loopback.  The same load goes through the client tor's
SocksPort, and through isoproxy in front of that very SocksPort, in pairs: each pair has a user of
its own (so its own circuits on either side), runs in the order A B B A or B A A B, and counts the
mean of each side's two runs.  The results are medians over the pairs of the difference, or of the
ratio, within a pair; the quartiles say how much they mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import isoproxy_command
from benchmarks.front import machine
from benchmarks.measuring import Load, LoadError
from benchmarks.report import aligned
from benchmarks.running import FarEnd, StartError, far_end, free_address, proxy
from tests.kit.tornet import TorNetError, TorNetwork

TOR, OURS = "Tor's SocksPort", "isoproxy"

LEAST_THROUGHPUT: Final = 0.97
MOST_ADDED_MS: Final = 1.0

Pair = dict[str, float]


@dataclass(frozen=True)
class Quantity:
    """What each pair measures: set-up time, or throughput of some connections.

    tuples: each connection has an isolation tuple, so a circuit, of its own.
    """

    name: str
    connections: int | None = None
    tuples: bool = False

    def measure(self, load: Load, options: argparse.Namespace) -> float:
        if self.connections is None:
            return float(load.run("setup", count=options.streams)["p50_us"]) / 1000
        load = replace(load, distinct=self.tuples)
        got = load.run("throughput", count=self.connections, seconds=options.seconds)
        return float(got["bytes"]) / float(got["seconds"]) / 1e6


SETUP: Final = Quantity("stream set-up, ms")
QUANTITIES: Final = [
    SETUP,
    Quantity("MB/s, 1 connection", 1),
    Quantity("MB/s, 16 tuples", 16, tuples=True),
]

Pairs = dict[str, list[Pair]]


def compare(paths: dict[str, str], base_port: int, options: argparse.Namespace) -> Pairs:
    """All quantities, `options.pairs` times, over both paths (name -> SOCKS address)."""
    pairs: Pairs = {quantity.name: [] for quantity in QUANTITIES}
    for number in range(options.pairs):
        loads = {
            name: Load(base_port, address, one_address=True, user=f"pair{number}")
            for name, address in paths.items()
        }
        for load in loads.values():
            load.run("setup", count=3)  # the circuit is built
        first, second = list(paths) if number % 2 == 0 else reversed(paths)
        for quantity in QUANTITIES:
            pair = dict.fromkeys(paths, 0.0)
            for name in (first, second, second, first):
                pair[name] += quantity.measure(loads[name], options) / 2
            pairs[quantity.name].append(pair)
        print(f"pair {number + 1} of {options.pairs}", file=sys.stderr)
    return pairs


def added_ms(pairs: Pairs) -> list[float]:
    """What isoproxy adds to the set-up of a stream, in ms, pair by pair."""
    return [pair[OURS] - pair[TOR] for pair in pairs[SETUP.name]]


def throughput_ratios(pairs: Pairs, quantity: Quantity) -> list[float]:
    """isoproxy's throughput over Tor's, pair by pair."""
    return [pair[OURS] / pair[TOR] for pair in pairs[quantity.name]]


def table(pairs: Pairs) -> str:
    rows = [["", TOR, OURS, "added or ratio", "quartiles", "bound", ""]]
    for quantity in QUANTITIES:
        sides = [_median_of(pairs[quantity.name], name) for name in (TOR, OURS)]
        is_setup = quantity is SETUP
        values = added_ms(pairs) if is_setup else throughput_ratios(pairs, quantity)
        middle = statistics.median(values)
        if is_setup:
            bound, met = f"<= {MOST_ADDED_MS:g}", middle <= MOST_ADDED_MS
        else:
            bound, met = f">= {LEAST_THROUGHPUT:g}", middle >= LEAST_THROUGHPUT
        verdict = "met" if met else "not met"
        rows.append([quantity.name, *sides, f"{middle:.3f}", _quartiles(values), bound, verdict])
    return aligned(rows)


def _median_of(pairs: Sequence[Pair], name: str) -> str:
    return f"{statistics.median(pair[name] for pair in pairs):.2f}"


def _quartiles(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{low:.3f} .. {high:.3f}"


def as_json(pairs: Pairs, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": facts,
        "pairs": pairs,
        "added_setup_ms": statistics.median(added_ms(pairs)),
        "throughput_ratio": {
            q.name: statistics.median(throughput_ratios(pairs, q))
            for q in QUANTITIES
            if q is not SETUP
        },
        "targets": {"added_setup_ms": MOST_ADDED_MS, "throughput_ratio": LEAST_THROUGHPUT},
    }


def _run(end: FarEnd, options: argparse.Namespace) -> Pairs:
    with TorNetwork() as network:
        client = network.client
        socks = f"unix:{client.socks_path}" if options.unix else "{}:{}".format(*client.socks)
        listen = free_address()
        with proxy(isoproxy_command(listen, socks), listen):
            paths = {TOR: socks, OURS: f"{listen[0]}:{listen[1]}"}
            return compare(paths, end.base_port, options)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.tor", description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="default 7")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load (default 2)")
    parser.add_argument("--streams", type=int, default=30, help="timed for set-up (default 30)")
    parser.add_argument("--unix", action="store_true", help="both use the unix SocksPort")
    parser.add_argument("--json", action="store_true", help="print all pairs as JSON")
    options = parser.parse_args(arguments)
    facts = machine()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as directory,
            far_end(Path(directory)) as end,
        ):
            pairs = _run(end, options)
    except (StartError, LoadError, TorNetError) as error:
        print(f"The comparison with Tor did not run: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(as_json(pairs, facts), indent=1))
    else:
        print("  ".join(f"{key} {value}" for key, value in facts.items()), end="\n\n")
        print(table(pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
