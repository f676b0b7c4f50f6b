"""Who is at work, by label: how many streams, look-ups and Bitcoin sessions each has.

Invariants
    A label is six hexadecimal digits of this process's own; there is no name or address here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from isoproxy.daemon.status.snapshot import Snapshot

MAX_IDENTITIES: Final = 500
"""That are told of, the busiest first."""


def identities_status(snapshot: Snapshot) -> list[dict[str, object]]:
    """A row for each identity that has something open, or looked something up."""
    report = snapshot.traffic.report
    flows = [flow for flow in report.flows if flow.key]
    streams = Counter(flow.key for flow in flows)
    sessions = Counter(flow.key for flow in report.bitcoin.flows)
    up, down, oldest = Counter[str](), Counter[str](), dict[str, float]()
    for flow in flows:
        up[flow.key] += flow.bytes_up
        down[flow.key] += flow.bytes_down
        oldest[flow.key] = max(oldest.get(flow.key, 0.0), flow.age_s)
    lookups: Mapping[str, int] = snapshot.lookups
    labels = streams.keys() | sessions.keys() | lookups.keys()
    busiest = sorted(labels, key=lambda label: (-streams[label], -lookups.get(label, 0), label))
    return [
        {
            "key": label,
            "streams": streams[label],
            "lookups": lookups.get(label, 0),
            "bitcoin": sessions[label],
            "bytes_up": up[label],
            "bytes_down": down[label],
            "age_s": round(oldest.get(label, 0.0), 1),
        }
        for label in busiest[:MAX_IDENTITIES]
    ]
