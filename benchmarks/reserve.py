"""How often a new identity meets the reserve of connections empty: `python -m benchmarks.reserve`.

For each number of servers that are up, and each size of the reserve: the share of binds that
found no connection at their server, by the stationary distribution of the process (births at a
constant rate; deaths at the rate of one life for each connection, and takes) and by simulation
of the same clocks.  The load is that of docs/decisions/0100-reserve.md.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from dataclasses import dataclass
from typing import Final

from isoproxy.namecoin.electrum.pool import PoolSettings

IDENTITIES: Final = 4
"""In use all the time."""
NEW_PER_HOUR: Final = 2.0
"""Of them, identities that are given up for new ones, in an hour."""
SERVERS: Final = (4, 6, 8, 12)
SIZES: Final = (48, 64, 96, 128)
WANTED: Final = 1e-3


def takes_per_hour(settings: PoolSettings) -> float:
    """Connections bound in an hour: those of new identities, and where a life was over."""
    life = settings.life / 3600.0
    return settings.asked * (NEW_PER_HOUR + IDENTITIES / life)


def emptiness(settings: PoolSettings, servers: int) -> float:
    """The share of takes at one of `servers` equal servers that find its reserve empty."""
    births = settings.openings_per_hour / servers
    takes = takes_per_hour(settings) / servers
    life = settings.life / 3600.0
    weight, total = 1.0, 1.0
    for count in range(1, 1000):
        weight *= births / (takes + count / life)
        total += weight
    return 1.0 / total


@dataclass
class Outcome:
    """What a simulation counted."""

    takes: int = 0
    empty: int = 0


def simulate(settings: PoolSettings, servers: int, hours: float, rng: random.Random) -> Outcome:
    """The same clocks, drawn; the first tenth of the time is not counted."""
    outcome = Outcome()
    reserve: list[list[float]] = [[] for _ in range(servers)]
    life = settings.life / 3600.0
    rates = (settings.openings_per_hour, takes_per_hour(settings))
    events = [(rng.expovariate(rate), kind) for kind, rate in enumerate(rates)]
    heapq.heapify(events)
    while events[0][0] < hours:
        now, kind = heapq.heappop(events)
        heapq.heappush(events, (now + rng.expovariate(rates[kind]), kind))
        at = rng.randrange(servers)
        alive = reserve[at] = [end for end in reserve[at] if end > now]
        if kind == 0:
            alive.append(now + rng.expovariate(1.0 / life))
        else:
            if now > hours / 10:
                outcome.takes += 1
                outcome.empty += not alive
            if alive:
                alive.pop(rng.randrange(len(alive)))
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reserve")
    parser.add_argument("--hours", type=float, default=5000.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print("reserve  servers  life h  takes/h  empty (computed)  empty (simulated)")
    for size in SIZES:
        settings = PoolSettings(reserve=size)
        for servers in SERVERS:
            seen = simulate(settings, servers, options.hours, rng)
            print(
                f"{size:7}  {servers:7}  {settings.life / 3600:6.2f}  "
                f"{takes_per_hour(settings):7.1f}  {emptiness(settings, servers):16.1e}  "
                f"{seen.empty / seen.takes:10.1e} of {seen.takes}"
            )
    return 0 if emptiness(PoolSettings(), 8) < WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
