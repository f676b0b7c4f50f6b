"""Connections are counted until they are over, in total and for each client; room is made."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.front.admission import ConnectionTable
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.services import FrontSettings, Limits
from isoproxy.front.states import State
from isoproxy.front.statistics import Counters, ListenerStatistics
from isoproxy.isolation import client_of_address
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
        assert (table.make_room(b"a"), table.make_room(b"b")) == (False, True)
        come(b"b")
        assert (table.make_room(b"b"), len(table), statistics.open) == (False, 3, 3)
        first.end()
        assert (table.make_room(b"a"), len(table), statistics.open) == (True, 2, 2)
        settings.limits = Limits(max_connections=2)
        assert not table.make_room(b"c")
        emptied = asyncio.ensure_future(table.emptied())
        for connection in table:
            await asyncio.sleep(0)
            assert not emptied.done()
            connection.end()
        await asyncio.wait_for(emptied, 1)
        assert not table.per_client


async def test_where_all_are_taken_the_oldest_silent_one_of_whoever_has_most_makes_room() -> None:
    settings = FrontSettings(Limits(max_connections=6, max_connections_per_client=4))
    table = ConnectionTable(settings)
    statistics = ListenerStatistics("test", Counters(), Counter())
    ended: list[str] = []
    with front_services(settings) as services:

        def come(name: str, client_id: bytes, state: State = State.HANDSHAKE) -> bool:
            if not table.make_room(client_id):
                return False
            connection = Connection(services, statistics, None, client_id, table.remove)  # type: ignore[arg-type]
            connection.state = state
            connection.phase = Silent(connection, lambda: ended.append(name))
            table.add(connection)
            return True

        greedy = [client_of_address(f"127.0.0.{number}") for number in range(1, 5)]
        assert come("relayed", greedy[0], State.RELAYING)
        assert all(come(f"silent {n}", greedy[n]) for n in (1, 2, 3))
        assert not come("a fifth of this machine's", client_of_address("127.9.9.9"))
        network = [client_of_address(f"fd00::{n:x}") for n in (1, 2)]
        assert come("another's", network[0])
        assert come("another's next", network[1])
        assert not ended
        assert come("somebody", client_of_address("192.0.2.1"))
        assert ended == ["silent 1"]
        assert statistics.counters.refusals[ErrorKind.BUSY] == 1
        assert all(come("somebody else", client_of_address(f"192.0.2.{n}")) for n in (2, 3, 4))
        assert sorted(ended[1:]) == ["another's", "silent 2", "silent 3"]
        assert not come("one where all have one", client_of_address("192.0.2.5"))
        for connection in table:
            connection.abort()
        assert not table.per_client


class Silent(Phase):
    """Ends its connection, which has no socket."""

    def __init__(self, connection: Connection, ended: Callable[[], None]) -> None:
        super().__init__(connection)
        self._ended = ended

    def begin(self) -> None:
        """It never does."""

    def abort(self) -> None:
        self._ended()
        self.connection.end()
