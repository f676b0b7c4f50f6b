"""Each client's share of the look-ups under way, and streams that wait for their turn.

Theory of operation
    A stream whose client has its share under way waits; when one of that client's look-ups
    ends, the streams that have waited longest have their turn.  What a turn comes to is
    decided by what Tor lists then: the stream may be gone.  Tor itself gives a stream up
    after SocksTimeout, so no wait is longer than that.

Invariants
    Clients do not wait for each other.  Look-ups and waiting streams are bounded, for each
    client and in all; what is beyond is refused.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

MAX_LOOKUPS: Final = 4096
MAX_LOOKUPS_OF_ONE: Final = 256
"""Of one client address, or of all streams whose address is not certain."""
MAX_WAITING_OF_ONE: Final = 4096
MAX_WAITING: Final = 16384


class Admission(Enum):
    """Whether a stream's look-up begins now, later or not at all."""

    BEGINS = auto()
    WAITS = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A look-up, and whose."""

    wants_address: bool
    client: bytes


class LookupShares:
    """Look-ups by the numbers of their streams."""

    def __init__(self) -> None:
        self._under_way: dict[int, UnderWay] = {}
        self._count: Counter[bytes] = Counter()
        self._waiting: dict[bytes, OrderedDict[int, None]] = {}
        self._all_waiting = 0

    def __contains__(self, stream: int) -> bool:
        return stream in self._under_way

    def __len__(self) -> int:
        return len(self._under_way)

    def admit(self, stream: int, lookup: UnderWay) -> Admission:
        """Begin the look-up of `stream`, or let it wait."""
        if len(self._under_way) >= MAX_LOOKUPS:
            return Admission.REFUSED
        if self._count[lookup.client] >= MAX_LOOKUPS_OF_ONE:
            return self._wait(stream, lookup.client)
        self._under_way[stream] = lookup
        self._count[lookup.client] += 1
        return Admission.BEGINS

    def _wait(self, stream: int, client: bytes) -> Admission:
        queue = self._waiting.setdefault(client, OrderedDict())
        if stream not in queue:
            if len(queue) >= MAX_WAITING_OF_ONE or self._all_waiting >= MAX_WAITING:
                return Admission.REFUSED
            queue[stream] = None
            self._all_waiting += 1
        return Admission.WAITS

    def end(self, stream: int) -> UnderWay | None:
        """The look-up of `stream`, which is not under way any more; None if it was not."""
        lookup = self._under_way.pop(stream, None)
        if lookup is not None:
            self._count[lookup.client] -= 1
            if not self._count[lookup.client]:
                del self._count[lookup.client]
        return lookup

    def whose_turn_it_is(self) -> list[int]:
        """Streams that waited and now have room; each is named once."""
        turns: list[int] = []
        for client, queue in list(self._waiting.items()):
            room = MAX_LOOKUPS_OF_ONE - self._count[client]
            while queue and room > 0:
                turns.append(queue.popitem(last=False)[0])
                room -= 1
            if not queue:
                del self._waiting[client]
        self._all_waiting -= len(turns)
        return turns
