"""How fast circuits may be opened and how much servers may be asked for: token buckets.

Theory of operation
    ElectrumX counts what a session costs it (a unit per 5000 bytes in either direction
    and a little per request), forgives about one unit a second, slows a session down
    above 1000 units and cuts it off above 10000.  `CostBudget` keeps the same account on
    our side.  `OpenRate` keeps Tor from being asked for many circuits at once.

    Times are seconds of any monotonic clock, passed in.
"""

from __future__ import annotations


class OpenRate:
    """A token bucket over new circuits; `now` in s of a monotonic clock."""

    def __init__(self, per_minute: float, burst: int, now: float) -> None:
        self._rate = per_minute / 60.0
        self._burst = float(burst)
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> float:
        """0 if a circuit may be opened now (and it is counted), else the s to wait."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class CostBudget:
    """What we may still cost one server; times in s of a monotonic clock."""

    def __init__(self, capacity: float, rate: float) -> None:
        self._capacity = capacity
        self._rate = rate
        self._units = capacity
        self._at: float | None = None

    def wait_for(self, units: float, now: float) -> float:
        """The s to wait before something of this cost may be asked."""
        if self._at is not None:
            self._units = min(self._capacity, self._units + (now - self._at) * self._rate)
        self._at = now
        missing = min(units, self._capacity) - self._units
        return max(0.0, missing / self._rate)

    def spend(self, units: float) -> None:
        """Count what was asked."""
        self._units -= units
