"""One range of headers from one server: asking for it, and reading what comes.

Theory of operation
    Servers count what they send and cut off who takes too much.  A `CostBudget` per
    server counts the same way and stays well below the usual limit.  They also refuse an
    answer that is too long, and so do we; how long a header is with its proof is up to
    whoever mined it or passed it on.  The next time such a server is asked for fewer
    (`ask_less`), down to a single one, and for twice as many again after each answer.

    A range that is not there after a short while is asked of another server, and the one that
    let us wait loses its turn: no server that claims what others do not have can keep us at an
    old tip for longer.

    An answer is 10 MB at most, and what its headers cost to read and check is up to whoever
    made them.  `read` gives the loop's other work its turn every few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import DialError, ErrorKind, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import HEADER_LENGTH, MinedHeader, series
from isoproxy.namecoin.electrum import results
from isoproxy.namecoin.electrum.rate_limit import CostBudget
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import ElectrumSession

MAX_BLOB: Final = 10_000_000
"""Bytes of headers in one answer."""
_MOST_PER_HEADER: Final = 5000.0
"""Bytes on the wire that are accounted for; padding must not make us wait for hours."""

_LESS: Final = 8
"""Few steps: between them a server is left alone, each time for twice as long."""


class Miscounted(RemoteProtocolError):
    """An answer has other headers than were asked for."""

    def __init__(self) -> None:
        super().__init__("a name server sent too few headers, or too many")


class RangeTooSlow(DialError):
    """A server did not send a range in time."""

    def __init__(self) -> None:
        super().__init__("a name server is slow to send headers", kind=ErrorKind.TTL_EXPIRED)


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """`chunk` headers are asked for at a time, over `connections` connections.  A range takes
    `timeout` and `timeout_per_header` at most, and a fork is settled within
    `settle_timeout`, or with another server.

    A server's cost counts as in ElectrumX: a unit per 5000 bytes, at most
    `cost_capacity` at once, `cost_rate` units a second from then on.  Times in s.
    """

    chunk: int = 504
    connections: int = 3
    cost_capacity: float = 6000.0
    cost_rate: float = 0.9
    timeout: float = 8.0
    timeout_per_header: float = 0.05
    settle_timeout: float = 30.0
    idle: float = 60.0


class HeaderRanges:
    """Fetches ranges, and knows what each server has sent so far."""

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._budgets: dict[str, CostBudget] = {}
        self._chunks: dict[str, int] = {}
        self._bytes_per_header = 1700.0

    def chunk(self, label: str) -> int:
        """How many headers the server `label` is to be asked for at a time."""
        return self._chunks.get(label, self._settings.chunk)

    def ask_less(self, label: str) -> None:
        """Ask it for fewer from now on."""
        self._chunks[label] = max(1, self.chunk(label) // _LESS)

    def _ask_more(self, label: str) -> None:
        if label in self._chunks:
            self._chunks[label] = min(self._settings.chunk, 2 * self._chunks[label])

    async def fetch(
        self, server: NameServer, session: ElectrumSession, start: int, count: int
    ) -> bytes:
        """The `count` headers from `start` on, concatenated.

        Raises RemoteProtocolError or DialError.
        """
        settings = self._settings
        budget = self._budgets.setdefault(
            server.label, CostBudget(settings.cost_capacity, settings.cost_rate)
        )
        loop = asyncio.get_running_loop()
        estimate = 1 + count / 50 + count * self._bytes_per_header / 5000
        await asyncio.sleep(budget.wait_for(estimate, loop.time()))
        timeout = settings.timeout + settings.timeout_per_header * count
        try:
            with session.in_use():
                async with asyncio.timeout(timeout):
                    answer = await session.call("blockchain.block.headers", start, count)
        except TimeoutError:
            raise RangeTooSlow from None
        got, blob = results.header_blob(answer, MAX_BLOB)
        size = min(2 * len(blob), _MOST_PER_HEADER * count)
        budget.spend(1 + count / 50 + size / 5000)
        if got != count or len(blob) < HEADER_LENGTH * count:
            raise Miscounted
        self._bytes_per_header = max(200.0, size / count)
        self._ask_more(server.label)
        return blob


async def read(blob: bytes) -> AsyncIterator[MinedHeader]:
    """The headers that `blob` holds; raises RemoteProtocolError."""
    for mined in series(blob):
        if mined is None:
            await asyncio.sleep(0)
        else:
            yield mined
