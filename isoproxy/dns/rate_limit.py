"""How many queries each client may ask: a token bucket for each, in bounded memory.

Invariants
    A client that asks at most `rate` times a second is always served.  At most MAX_CLIENTS
    are remembered; a client that is forgotten starts with a full bucket.  Nothing here
    reads a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_CLIENTS: Final = 4096


class RateLimit:
    """`rate` queries per second and client; a second's worth may come at once."""

    def __init__(self, rate: float) -> None:
        self._rate: Final = rate
        self._buckets: Final[OrderedDict[bytes, tuple[float, float]]] = OrderedDict()

    def allows(self, client: bytes, now: float) -> bool:
        """Count one query of `client` at `now` (s); False if it is one too many."""
        buckets = self._buckets
        tokens, before = buckets.get(client, (self._rate, now))
        tokens = min(self._rate, tokens + (now - before) * self._rate)
        allowed = tokens >= 1.0
        buckets[client] = (tokens - 1.0 if allowed else tokens, now)
        buckets.move_to_end(client)
        if len(buckets) > MAX_CLIENTS:
            buckets.popitem(last=False)
        return allowed
