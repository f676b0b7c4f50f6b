"""The connections of a process, and the budgets that bound them.

Invariants
    At most `limits.max_connections` are open, and of one client at most
    `limits.max_connections_per_client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from isoproxy.front.connection import Connection
from isoproxy.front.services import FrontSettings


class ConnectionTable:
    """The connections that are open; `per_client` counts those of each client field."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._open: set[Connection] = set()
        self._emptied = asyncio.Event()
        self.per_client: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Those of now; they may end meanwhile."""
        return iter(list(self._open))

    def has_room(self, client_id: bytes) -> bool:
        """Whether one more connection of this client is within the budgets."""
        limits = self._settings.limits
        if len(self._open) >= limits.max_connections:
            return False
        return self.per_client.get(client_id, 0) < limits.max_connections_per_client

    def add(self, connection: Connection) -> None:
        """Count a connection until `remove`."""
        self._open.add(connection)
        client_id = connection.client_id
        self.per_client[client_id] = self.per_client.get(client_id, 0) + 1
        connection.statistics.open += 1

    def remove(self, connection: Connection) -> None:
        """Let go of one that is over."""
        self._open.discard(connection)
        connection.statistics.open -= 1
        left = self.per_client.pop(connection.client_id) - 1
        if left:
            self.per_client[connection.client_id] = left
        if not self._open:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until none is open."""
        while self._open:
            self._emptied.clear()
            await self._emptied.wait()
