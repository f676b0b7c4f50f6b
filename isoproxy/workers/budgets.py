"""The budgets of the whole, divided among the processes beforehand.

Invariants
    All parts together are the whole, and no process asks another one for more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from isoproxy.front.services import Limits

SMALLEST_PART: Final = 64
"""Connections; more processes than would have so many each are not started."""
FEWEST_CIRCUITS: Final = 6
"""Pending circuits that each of several stream processes needs."""
_FOR_LOOKUPS: Final = 4
"""The main process, which dials name servers, has this part of the circuits, rounded up."""


def part(total: int, index: int, count: int) -> int:
    """The part of the process `index` of `count`."""
    return total // count + (index < total % count)


def circuits_for_lookups(total: int) -> int:
    """The main process's part of the circuits that may be pending."""
    return -(-total // _FOR_LOOKUPS)


def circuits_for_streams(total: int, index: int, count: int) -> int:
    """The part of the stream process `index` of `count`; at least one of two for the first."""
    return part(total - circuits_for_lookups(total), index, count)


def limits_of(limits: Limits, index: int, count: int) -> Limits:
    """The part of the stream process `index` of `count` of the connections."""
    return replace(
        limits,
        max_connections=part(limits.max_connections, index, count),
        max_connections_per_client=part(limits.max_connections_per_client, index, count),
    )


def processes_for(wanted: int, cores: int, limits: Limits, circuits: int) -> int:
    """How many stream processes: as many as are wanted, as far as cores and budgets go."""
    fewest = min(limits.max_connections, limits.max_connections_per_client)
    streams = circuits - circuits_for_lookups(circuits)
    return max(1, min(wanted, cores, fewest // SMALLEST_PART, streams // FEWEST_CIRCUITS))
