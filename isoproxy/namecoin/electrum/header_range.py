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

    A server can be asked for *bare* headers, 80 bytes each, by naming a checkpoint height
    (`blockchain.block.headers` with `cp_height`, protocol 1.4.1): a tenth of the whole ones on
    the wire.  ElectrumX from 1.19 on cuts in wrong places unless the range begins at 0.  So the
    answer is looked at: what are not so many headers, each linked to the one before, shows that
    this server cannot cut; it is asked for whole ones from then on.

    An answer is 10 MB at most, and what its headers cost to read and check is up to whoever
    made them.  `read` gives the loop's other work its turn every few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import DialError, ErrorKind, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import (
    HEADER_LENGTH,
    MAX_HEADER,
    Header,
    MinedHeader,
    series,
)
from isoproxy.namecoin.chain.transaction import double_sha256
from isoproxy.namecoin.electrum import results
from isoproxy.namecoin.electrum.rate_limit import CostBudget
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import ElectrumSession, ServerRefused, abandon

MAX_BLOB: Final = 10_000_000
"""Bytes of headers in one answer."""
_MOST_PER_HEADER: Final = 5000.0
"""Bytes on the wire that are accounted for; padding must not make us wait for hours."""

_EXCESSIVE_USE: Final = -101
"""ElectrumX's error code for a session that costs too much."""
_CUT_PROTOCOL: Final = (1, 4, 1)
_BARE_PER_WHOLE: Final = 10
"""So many bare headers are as long on the wire as a whole one."""
_FIRST_BARE: Final = 64
_HASHES_AT_ONCE: Final = 256
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


class CannotCut(DialError):
    """A server was asked for bare headers and gave something else."""

    def __init__(self) -> None:
        super().__init__("a name server cannot cut headers", kind=ErrorKind.GENERAL_FAILURE)


@dataclass(frozen=True, slots=True)
class HeaderRange:
    """Concatenated headers: whole ones, or the first 80 bytes of each."""

    blob: bytes
    is_bare: bool = False

    @property
    def previous(self) -> bytes:
        """The hash that the first of them links to."""
        return self.blob[4:36]


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """`chunk` headers are asked for at a time, of bare ones `bare_chunk`, over `connections`
    connections; beside a server that is silent for `beside` s another one is asked.  A range
    takes `timeout` and `timeout_per_header` at most.  A server is followed to what others do
    not have for `turn` s at first (`turns`).

    Between `sample_from` and `sample_until` blocks the way to a tip is `sampled`, and look-ups
    begin then; what is not proven yet follows, a range of `chunk` every `idle` s.  Farther
    tips are taken whole: bare headers cost nobody any work, and are kept until they are proven.

    A server's cost counts as in ElectrumX: a unit per 5000 bytes, at most
    `cost_capacity` at once, `cost_rate` units a second from then on.  Times in s.
    """

    chunk: int = 504
    bare_chunk: int = 2016
    connections: int = 3
    beside: float = 2.0
    cost_capacity: float = 6000.0
    cost_rate: float = 0.9
    timeout: float = 8.0
    timeout_per_header: float = 0.05
    turn: float = 30.0
    idle: float = 60.0
    sampled: bool = True
    sample_from: int = 1008
    sample_until: int = 500_000

    def is_sampled(self, away: int) -> bool:
        """Whether the way to a tip that is so many blocks away is taken by sampled proof."""
        return self.sampled and self.sample_from <= away <= self.sample_until

    def lateness(self, count: int) -> float:
        """After how many s a range of `count` headers is asked of another server as well."""
        return self.beside + self.timeout_per_header * count / 2


class HeaderRanges:
    """Fetches ranges, and knows what each server has sent so far."""

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._budgets: dict[str, CostBudget] = {}
        self._chunks: dict[str, int] = {}
        self._bytes_per_header = 1700.0
        self._cannot_cut: set[str] = set()
        self._has_cut: set[str] = set()

    def chunk(self, label: str) -> int:
        """How many headers the server `label` is to be asked for at a time."""
        return self._chunks.get(label, self._settings.chunk)

    def bare_chunk(self, label: str) -> int:
        """The same for headers of which 80 bytes are enough; a few, to see whether it can cut."""
        if label in self._cannot_cut:
            return self.chunk(label)
        most = self._settings.bare_chunk
        return most if label in self._has_cut else min(_FIRST_BARE, most)

    def can_cut(self, label: str) -> bool:
        """False if it has shown that it cannot."""
        return label not in self._cannot_cut

    def ask_less(self, label: str) -> None:
        """Ask it for fewer from now on."""
        self._chunks[label] = max(1, self.chunk(label) // _LESS)

    def _ask_more(self, label: str) -> None:
        if label in self._chunks:
            self._chunks[label] = min(self._settings.chunk, 2 * self._chunks[label])

    async def fetch(
        self, server: NameServer, session: ElectrumSession, start: int, count: int
    ) -> HeaderRange:
        """The `count` whole headers from `start` on.

        Raises RemoteProtocolError or DialError.
        """
        per_header = self._bytes_per_header
        blob = await self._fetch(server, session, (start, count), per_header)
        self._bytes_per_header = max(200.0, _accounted(blob, count) / count)
        self._ask_more(server.label)
        return HeaderRange(blob)

    async def fetch_bare(
        self, server: NameServer, session: ElectrumSession, start: int, count: int
    ) -> HeaderRange:
        """The same where 80 bytes of each are enough: bare ones of a server that can cut.

        Raises CannotCut if it turns out that this one cannot: ask it again, for `bare_chunk`.
        """
        checkpoint = session.claimed_height
        if server.label in self._cannot_cut or start + count - 1 > checkpoint:
            return await self.fetch(server, session, start, count)
        blob = b""
        if session.protocol >= _CUT_PROTOCOL:
            asked = (start, count, checkpoint)
            try:
                blob = await self._fetch(server, session, asked, 2.0 * HEADER_LENGTH)
            except Miscounted:
                pass
            except ServerRefused as refusal:
                if refusal.code == _EXCESSIVE_USE:
                    raise
        if len(blob) != HEADER_LENGTH * count or not await _is_linked(blob):
            self._cannot_cut.add(server.label)
            raise CannotCut
        if start:
            self._has_cut.add(server.label)
        return HeaderRange(blob, is_bare=True)

    async def fetch_single(
        self, server: NameServer, session: ElectrumSession, heights: Sequence[int]
    ) -> HeaderRange:
        """The whole headers at `heights`, all asked for at once.

        Raises RemoteProtocolError or DialError.
        """
        count, budget = len(heights), self._budget(server.label)
        estimate = count * (1 + self._bytes_per_header / 5000)
        await asyncio.sleep(budget.wait_for(estimate, asyncio.get_running_loop().time()))
        most = self._settings.timeout + self._settings.timeout_per_header * count
        try:
            with session.in_use():
                async with asyncio.timeout(most):
                    requests = [session.request("blockchain.block.header", at) for at in heights]
                    try:
                        answers = await asyncio.gather(*requests)
                    finally:
                        abandon(requests)
        except TimeoutError:
            raise RangeTooSlow from None
        blob = b"".join(results.hex_bytes(answer, MAX_HEADER) for answer in answers)
        budget.spend(count + _accounted(blob, count) / 5000)
        return HeaderRange(blob)

    def _budget(self, label: str) -> CostBudget:
        settings = self._settings
        return self._budgets.setdefault(
            label, CostBudget(settings.cost_capacity, settings.cost_rate)
        )

    async def _fetch(
        self,
        server: NameServer,
        session: ElectrumSession,
        asked: tuple[int, ...],
        per_header: float,
    ) -> bytes:
        settings, count = self._settings, asked[1]
        budget = self._budget(server.label)
        loop = asyncio.get_running_loop()
        estimate = 1 + count / 50 + count * per_header / 5000
        await asyncio.sleep(budget.wait_for(estimate, loop.time()))
        whole = count if len(asked) == 2 else count / _BARE_PER_WHOLE
        timeout = settings.timeout + settings.timeout_per_header * whole
        try:
            with session.in_use():
                async with asyncio.timeout(timeout):
                    answer = await session.call("blockchain.block.headers", *asked)
        except TimeoutError:
            raise RangeTooSlow from None
        got, blob = results.header_blob(answer, MAX_BLOB)
        budget.spend(1 + count / 50 + _accounted(blob, count) / 5000)
        if got != count or len(blob) < HEADER_LENGTH * count:
            raise Miscounted
        return blob


def _accounted(blob: bytes, count: int) -> float:
    """The bytes on the wire of `count` headers, as far as they are accounted for."""
    return min(2 * len(blob), _MOST_PER_HEADER * count)


async def _is_linked(blob: bytes) -> bool:
    """True if `blob` is a series of bare headers, each linked to the one before."""
    for at in range(HEADER_LENGTH, len(blob), HEADER_LENGTH):
        if at // HEADER_LENGTH % _HASHES_AT_ONCE == 0:
            await asyncio.sleep(0)
        if double_sha256(blob[at - HEADER_LENGTH : at]) != blob[at + 4 : at + 36]:
            return False
    return True


async def read(headers: HeaderRange) -> AsyncIterator[MinedHeader]:
    """The headers one by one, bare ones without a proof; raises RemoteProtocolError."""
    if headers.is_bare:
        for at in range(0, len(headers.blob), HEADER_LENGTH):
            if at // HEADER_LENGTH % _HASHES_AT_ONCE == 0:
                await asyncio.sleep(0)
            yield MinedHeader(Header.parse(headers.blob[at : at + HEADER_LENGTH]), None)
        return
    for mined in series(headers.blob):
        if mined is None:
            await asyncio.sleep(0)
        else:
            yield mined
