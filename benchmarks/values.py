"""Measure how fast `d/` values are parsed, beside `json.loads` in the same run.

    python benchmarks/values.py [--seconds 0.5] [--rounds 5] [--json]

A typical value is one of `VALUES`, in turn.  "resolved" parses it and asks what a
resolution asks: the node of `_tor.<name>`, and that of the name.  "listed" parses it and
lists the whole zone.  Seconds are processor time: what one core does, whatever else the
machine does.  Rounds of all three alternate and the best round of each counts.  The exit
status is 1 if fewer than 20,000 values a second are resolved.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from isoproxy.namecoin.value.domain import Domain, Inquiry
from tests.kit.onion_address import onion_address

TARGET_PER_S = 20_000
BATCH = 200

VALUES = [
    b'{"ip":"192.0.2.1","map":{"*":{"ip":"192.0.2.1"}}}',
    b'{"ip":["192.0.2.1","192.0.2.2"],"ip6":"2001:db8::1","map":{"www":{"alias":""}}}',
    json.dumps({"map": {"_tor": {"txt": onion_address(bytes(32))}}}).encode(),
    b'{"ns":["ns1.example.com.","ns2.example.com."],'
    b'"ds":[[12345,8,1,"AAECAwQFBgcICQoLDA0ODxAREhM="]]}',
    b'{"alias":"other.bit.","info":{"r":"id/example"}}',
]


def finish(steps: Inquiry[object]) -> None:
    """Run `steps`; none of `VALUES` imports anything."""
    try:
        next(steps)
    except StopIteration:
        return
    raise AssertionError("a typical value needs no other")


def resolve(value: bytes) -> None:
    domain = Domain("example", value)
    finish(domain.at(("_tor",)))
    finish(domain.at(()))


def list_zone(value: bytes) -> None:
    finish(Domain("example", value).zone())


def rate(work: Callable[[bytes], object], seconds: float) -> float:
    """Values per second of processor time, over at least `seconds`."""
    done = 0
    start = time.process_time()
    while (elapsed := time.process_time() - start) < seconds:
        for number in range(BATCH):
            work(VALUES[number % len(VALUES)])
        done += BATCH
    return done / elapsed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    contenders: dict[str, Callable[[bytes], object]] = {
        "json.loads": json.loads,
        "resolved": resolve,
        "listed": list_zone,
    }
    best = dict.fromkeys(contenders, 0.0)
    for _ in range(options.rounds):
        for name, work in contenders.items():
            best[name] = max(best[name], rate(work, options.seconds))
    ratios = {name: best["json.loads"] / best[name] for name in contenders}
    if options.json:
        print(json.dumps({"per_second": best, "times_json": ratios, "target": TARGET_PER_S}))
    else:
        for name in contenders:
            print(f"{name:>10}: {best[name]:>9,.0f} values/s, {ratios[name]:5.1f} x json.loads")
    return 0 if best["resolved"] >= TARGET_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
