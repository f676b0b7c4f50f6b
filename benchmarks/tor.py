"""What isoproxy adds to Tor's own SocksPort: `python -m benchmarks.tor`.

A private Tor network of tests/kit runs on loopback.  The same load goes through the client tor's
SocksPort, and through isoproxy in front of that very SocksPort, in pairs: each pair has a user of
its own (so its own circuit on either side), and the order changes from pair to pair.  The results
are medians over the pairs of the difference, or of the ratio, within a pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
    """What each pair measures: a key of the load's result, scaled."""

    name: str
    connections: int | None  # None: set-up time

    def measure(self, load: Load, options: argparse.Namespace) -> float:
        if self.connections is None:
            return float(load.run("setup", count=options.streams)["p50_us"]) / 1000
        got = load.run("throughput", count=self.connections, seconds=options.seconds)
        return float(got["bytes"]) / float(got["seconds"]) / 1e6


SETUP: Final = Quantity("stream set-up, ms", None)
QUANTITIES: Final = [SETUP, Quantity("MB/s 1", 1), Quantity("MB/s 4", 4)]

Pairs = dict[str, list[Pair]]


def compare(paths: dict[str, str], base_port: int, options: argparse.Namespace) -> Pairs:
    """All quantities, `options.pairs` times, over both paths (name -> SOCKS address)."""
    pairs: Pairs = {quantity.name: [] for quantity in QUANTITIES}
    for number in range(options.pairs):
        names = list(paths) if number % 2 == 0 else list(reversed(paths))
        loads = {
            name: Load(base_port, paths[name], one_address=True, user=f"pair{number}")
            for name in names
        }
        for load in loads.values():
            load.run("setup", count=3)  # the circuit is built
        for quantity in QUANTITIES:
            pairs[quantity.name].append(
                {name: quantity.measure(load, options) for name, load in loads.items()}
            )
        print(f"pair {number + 1} of {options.pairs}", file=sys.stderr)
    return pairs


def added_ms(pairs: Pairs) -> float:
    """Median of what isoproxy adds to the set-up of a stream, in ms."""
    return statistics.median(pair[OURS] - pair[TOR] for pair in pairs[SETUP.name])


def throughput_ratio(pairs: Pairs, quantity: Quantity) -> float:
    """Median of isoproxy's throughput over Tor's."""
    return statistics.median(pair[OURS] / pair[TOR] for pair in pairs[quantity.name])


def table(pairs: Pairs) -> str:
    rows = [["", TOR, OURS, "", "bound", ""]]
    for quantity in QUANTITIES:
        middle = [
            f"{statistics.median(pair[name] for pair in pairs[quantity.name]):.2f}"
            for name in (TOR, OURS)
        ]
        if quantity is SETUP:
            value = added_ms(pairs)
            shown, bound, met = f"{value:+.2f} ms", f"<= {MOST_ADDED_MS}", value <= MOST_ADDED_MS
        else:
            value = throughput_ratio(pairs, quantity)
            shown, bound = f"x {value:.3f}", f">= {LEAST_THROUGHPUT}"
            met = value >= LEAST_THROUGHPUT
        rows.append([quantity.name, *middle, shown, bound, "met" if met else "not met"])
    return aligned(rows)


def as_json(pairs: Pairs, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": facts,
        "pairs": pairs,
        "added_setup_ms": added_ms(pairs),
        "throughput_ratio": {
            q.name: throughput_ratio(pairs, q) for q in QUANTITIES if q is not SETUP
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
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (default 3)")
    parser.add_argument("--streams", type=int, default=60, help="timed for set-up (default 60)")
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
