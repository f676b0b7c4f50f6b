"""Connections are counted until they are over, in total and for each client."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from isoproxy.front.admission import ConnectionTable
from isoproxy.front.connection import Connection
from isoproxy.front.services import FrontSettings, Limits
from isoproxy.front.statistics import Counters, ListenerStatistics
from tests.unit.front.services import front_services


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    near, far = socket.socketpair()
    with near, far:
        yield near


async def test_budgets_in_total_and_for_each_client(sock: socket.socket) -> None:
    limits = Limits(max_connections=3, max_connections_per_client=2)
    settings = FrontSettings(limits)
    table = ConnectionTable(settings)
    statistics = ListenerStatistics("test", Counters(), Counter())
    with front_services(settings) as services:

        def come(client_id: bytes) -> Connection:
            connection = Connection(services, statistics, sock, client_id, table.remove)
            table.add(connection)
            return connection

        first = come(b"a")
        come(b"a")
        assert (table.has_room(b"a"), table.has_room(b"b")) == (False, True)
        come(b"b")
        assert (table.has_room(b"b"), len(table), statistics.open) == (False, 3, 3)
        first.end()
        assert (table.has_room(b"a"), len(table), statistics.open) == (True, 2, 2)
        settings.limits = Limits(max_connections=2)
        assert not table.has_room(b"c")
        emptied = asyncio.ensure_future(table.emptied())
        for connection in table:
            await asyncio.sleep(0)
            assert not emptied.done()
            connection.end()
        await asyncio.wait_for(emptied, 1)
        assert not table.per_client
