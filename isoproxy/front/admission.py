"""The connections of a process, and the budgets that bound them.

Theory of operation
    Budgets are of clients as `isolation.budget_of` counts them: nobody has more by taking more
    addresses.  Where all connections are taken, the oldest that has not made its request yet
    makes room, of whoever has most of them: else a few silent clients could keep everybody
    out until their handshakes time out.

Invariants
    At most `limits.max_connections` are open, and of one client at most
    `limits.max_connections_per_client`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from isoproxy.errors import ErrorKind
from isoproxy.front.connection import Connection
from isoproxy.front.services import FrontSettings
from isoproxy.front.states import State
from isoproxy.isolation import budget_of

_LARGEST: Final = 8
"""Of so many clients that have most, one has to have a silent connection."""

_budget_of: Final = lru_cache(maxsize=4096)(budget_of)


class ConnectionTable:
    """The connections that are open; `per_client` counts those of each budget."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._open: set[Connection] = set()
        self._silent: dict[bytes, dict[Connection, None]] = {}
        """By budget, oldest first: in the handshake, or past it since they were looked at."""
        self._emptied = asyncio.Event()
        self.per_client: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Those of now; they may end meanwhile."""
        return iter(list(self._open))

    def make_room(self, client_id: bytes) -> bool:
        """Whether one more connection of this client is within the budgets.

        A silent one of a client that has more may end for it.
        """
        limits, mine = self._settings.limits, self.per_client.get(_budget_of(client_id), 0)
        if mine >= limits.max_connections_per_client:
            return False
        if len(self._open) < limits.max_connections:
            return True
        for other in heapq.nlargest(_LARGEST, self.per_client, key=self.per_client.__getitem__):
            if self.per_client[other] <= mine + 1:
                return False
            silent = self._oldest_silent(other)
            if silent is not None:
                silent.statistics.greeted(None, ErrorKind.BUSY)
                silent.abort()
                return True
        return False

    def _oldest_silent(self, budget: bytes) -> Connection | None:
        """A connection of that budget that has made no request yet."""
        silent = self._silent[budget]
        while silent:
            connection = next(iter(silent))
            if connection.state is State.HANDSHAKE:
                return connection
            del silent[connection]
        return None

    def add(self, connection: Connection) -> None:
        """Count a connection until `remove`."""
        self._open.add(connection)
        budget = _budget_of(connection.client_id)
        self.per_client[budget] = self.per_client.get(budget, 0) + 1
        self._silent.setdefault(budget, {})[connection] = None
        connection.statistics.open += 1

    def remove(self, connection: Connection) -> None:
        """Let go of one that is over."""
        self._open.discard(connection)
        connection.statistics.open -= 1
        budget = _budget_of(connection.client_id)
        self._silent[budget].pop(connection, None)
        left = self.per_client.pop(budget) - 1
        if left:
            self.per_client[budget] = left
        else:
            del self._silent[budget]
        if not self._open:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until none is open."""
        while self._open:
            self._emptied.clear()
            await self._emptied.wait()
