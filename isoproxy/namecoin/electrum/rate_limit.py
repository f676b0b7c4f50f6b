"""What look-ups may cost us, Tor and the servers: budgets, and each client's share of them.

Theory of operation
    ElectrumX counts what a session costs it (a unit per 5000 bytes in either direction
    and a little per request), forgives about one unit a second, slows a session down
    above 1000 units and cuts it off above 10000.  `CostBudget` keeps the same account on
    our side, and meters what a server sends us.

    `FairShare` divides a number of places: a client may take one as long as it holds fewer
    than are free.  Alone it gets a half, beside another busy one a third, and there are
    always some left for a client that has none (dynamic thresholds: Choudhury and Hahne,
    1998).  `ClientRates` gives each client a token bucket of its own.

    Clients are `isolation.budget_of` their addresses.  Times are seconds of any monotonic
    clock, passed in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

MAX_CLIENTS: Final = 1024
"""Clients whose rates are remembered; who has asked for nothing longest is forgotten first."""


class FairShare:
    """`limit` places for all clients together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[bytes] = Counter()

    @property
    def held(self) -> int:
        """Places that are taken."""
        return self._held.total()

    def take(self, client: bytes) -> bool:
        """Take a place for `client`, or return False: it holds as many as are free."""
        if self._held[client] >= self._limit - self.held:
            return False
        self._held[client] += 1
        return True

    def give_back(self, client: bytes) -> None:
        """A place that `client` has taken is free again."""
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]


class ClientRates:
    """`per_minute` events a minute for each client, as many of them at once."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = float(per_minute)
        self._budgets: OrderedDict[bytes, CostBudget] = OrderedDict()

    def wait_for(self, client: bytes, now: float) -> float:
        """The s until `client` may do what is counted here."""
        budget = self._budgets.get(client)
        return 0.0 if budget is None else budget.wait_for(1.0, now)

    def spend(self, client: bytes, now: float) -> None:
        """Count one event; those after it wait for longer, even if this one waits."""
        budget = self._budgets.get(client)
        if budget is None:
            budget = self._budgets[client] = CostBudget(self._per_minute, self._per_minute / 60.0)
            budget.wait_for(0.0, now)
            if len(self._budgets) > MAX_CLIENTS:
                self._budgets.popitem(last=False)
        self._budgets.move_to_end(client)
        budget.spend(1.0)


class CostBudget:
    """What may be spent: `capacity` units at once, `rate` units a second from then on."""

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
