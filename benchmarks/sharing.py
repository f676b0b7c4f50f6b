"""Isolation IDs at a million live tuples, against the scan that keeps every member.

    python -m benchmarks.sharing [--tuples N] [--scan N]

Prints microseconds of processor time per stream for streams of known and of new tuples;
the exit status is 1 if the median of either is above 5.  The scan (as a
controller does it that keeps a list of circuits) is measured on a smaller table, because
at a million tuples one stream would take it a second; its cost grows with the table.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable

from isoproxy.sharing import SharingTable, StreamFields, mask_of
from tests.kit.sharing_rule import may_share

DEFAULT = mask_of(["SOCKS_USERNAME", "SOCKS_PASSWORD", "CLIENTADDR", "SESSION_GROUP", "NYM_EPOCH"])


class Scan:
    """A list of groups, each with its members, looked through from the start."""

    def __init__(self) -> None:
        self._groups: list[list[tuple[StreamFields, int]]] = []

    def assign(self, stream: StreamFields, fields: int) -> int:
        for number, members in enumerate(self._groups):
            if all(may_share(stream, fields, old, others) for old, others in members):
                members.append((stream, fields))
                return number
        self._groups.append([(stream, fields)])
        return len(self._groups) - 1


def streams(first: int, count: int) -> list[StreamFields]:
    """`count` tuples; tuple i differs from every other in its user name."""
    return [
        StreamFields(
            b"10.137.0.%d" % (i % 200), b"user%d" % i, b"secret", b"SOCKS5", b"h%d.bit" % (i % 97),
            443, -6, 0,
        )
        for i in range(first, first + count)
    ]  # fmt: skip


TARGET_US = 5.0


def microseconds(
    title: str, assign: Callable[[StreamFields, int], object], streams: list[StreamFields]
) -> float:
    """Microseconds a stream, the median of ten equal parts; prints it with their range."""
    part, costs = len(streams) // 10, []
    for start in range(0, 10 * part, part):
        batch = streams[start : start + part]
        began = time.process_time()
        for stream in batch:
            assign(stream, DEFAULT)
        costs.append((time.process_time() - began) * 1e6 / part)
    median = statistics.median(costs)
    print(f"  {title}  {median:8.2f} us a stream ({min(costs):.2f} to {max(costs):.2f})")
    return median


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuples", type=int, default=1_000_000)
    parser.add_argument("--scan", type=int, default=2_000)
    options = parser.parse_args()
    gc.disable()

    table = SharingTable(capacity=2 * options.tuples)
    for start in range(0, options.tuples, 50_000):
        for stream in streams(start, min(50_000, options.tuples - start)):
            table.assign(stream, DEFAULT)
    known = random.sample(range(options.tuples), 50_000)
    again = [streams(i, 1)[0]._replace(dest_addr=b"other.bit") for i in known]
    print(f"table of {len(table)} tuples")
    costs = [microseconds("known tuple", table.assign, again)]
    fresh = streams(options.tuples, 50_000)
    costs.append(microseconds("new tuple  ", table.assign, fresh))

    scan = Scan()
    for stream in streams(0, options.scan):
        scan.assign(stream, DEFAULT)
    sample = [streams(i, 1)[0] for i in random.sample(range(options.scan), min(500, options.scan))]
    print(f"scan of {options.scan} tuples")
    microseconds("known tuple", scan.assign, sample)
    return 0 if max(costs) <= TARGET_US else 1


if __name__ == "__main__":
    sys.exit(main())
