"""Measure resolutions in process, beside a dictionary look-up in the same run.

    python benchmarks/resolver.py [--seconds 0.5] [--rounds 5] [--json]

"cached" is `lookup_cached` of a name as a client spells it, parsed each time;
"awaited" is `await resolve` with the same outcome; "uncached" is `await resolve` with a
backend that answers at once, a new name each time.  Keys and names take turns.  Seconds
are processor time: what one core does, whatever else the machine does.  The exit status is
1 if fewer than 100,000 cached resolutions a second are made.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time

from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    shared_group,
)
from isoproxy.namecoin.backend import Absent, Evidence, Found
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.value.name import BitName

TARGET_PER_S = 100_000
KEYS = 50
NAMES = 20
BATCH = KEYS * NAMES


class InstantBackend:
    """Has one value for every name, and has it at once."""

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        return Found(b'{"ip":"192.0.2.1"}', 1, "00" * 32, 36_000, Evidence.SPV_CONFIRMED)

    async def close(self) -> None:
        pass


class Bench:
    """A resolver whose cache holds every pair of a key and a name."""

    def __init__(self) -> None:
        isolator = Isolator()
        rule = ListenerRule(shared_group(1))
        self.keys = [
            isolator.key_for(
                rule, IsolationTuple(None, ClientProtocol.SOCKS5, username=b"%d" % number)
            )
            for number in range(KEYS)
        ]
        self.names = [f"www.example{number}.bit" for number in range(NAMES)]
        self.pairs = list(itertools.product(self.keys, self.names))
        self.table = dict.fromkeys(self.pairs, object())
        self.resolver = Resolver(InstantBackend(), isolator)
        self.fresh = (f"fresh{number}.bit" for number in itertools.count())

    async def fill(self) -> None:
        for key, name in self.pairs:
            await self.resolver.resolve(BitName.parse(name), key)

    async def dictionary(self) -> None:
        for pair in self.pairs:
            if self.table.get(pair) is None:
                raise AssertionError("not cached")

    async def cached(self) -> None:
        for key, name in self.pairs:
            if self.resolver.lookup_cached(BitName.parse(name), key) is None:
                raise AssertionError("not cached")

    async def awaited(self) -> None:
        for key, name in self.pairs:
            if not (await self.resolver.resolve(BitName.parse(name), key)).cached:
                raise AssertionError("not cached")

    async def uncached(self) -> None:
        for _ in range(BATCH):
            if (await self.resolver.resolve(BitName.parse(next(self.fresh)), self.keys[0])).cached:
                raise AssertionError("cached")


async def measure(seconds: float, rounds: int) -> dict[str, float]:
    """The best rate (1/s) of each kind over `rounds` rounds of `seconds`."""
    bench = Bench()
    kinds = {
        "dictionary": bench.dictionary,
        "cached": bench.cached,
        "awaited": bench.awaited,
        "uncached": bench.uncached,
    }
    best = dict.fromkeys(kinds, 0.0)
    for _ in range(rounds):
        for kind, work in kinds.items():
            await bench.fill()
            done = 0
            start = time.process_time()
            while (elapsed := time.process_time() - start) < seconds:
                await work()
                done += BATCH
            best[kind] = max(best[kind], done / elapsed)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    best = asyncio.run(measure(options.seconds, options.rounds))
    if options.json:
        print(json.dumps({"per_second": best, "target": TARGET_PER_S}))
    else:
        for kind, rate in best.items():
            ratio = best["dictionary"] / rate
            print(f"{kind:>10}: {rate:>11,.0f} resolutions/s, {ratio:7.1f} x a dictionary look-up")
    return 0 if best["cached"] >= TARGET_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
