"""How many servers must agree on a name, and which one is asked next.

Theory of operation
    A look-up asks as many servers as the quorum needs, all at once.  A server that fails
    is replaced by the next candidate.  One that is slow is asked on, beside the next
    candidate (a hedged request), and may still answer.

    Absence takes the agreement of at least two servers.  With fewer answers than the
    quorum the look-up fails: nothing is ever concluded from the servers that happened to
    be reachable.  Several servers of one operator are a quorum only after all that were
    asked of others have failed.

Invariants
    `Quorum` knows neither keys nor connections: a `Panel` asks one server and keeps its
    score.  When `run` ends, no question is under way any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.chain.spv import ProofVerdict
from isoproxy.namecoin.electrum.lookup import StillSyncing
from isoproxy.namecoin.electrum.servers import NameServer

ABSENCE_QUORUM: Final = 2


@dataclass(frozen=True, slots=True)
class ServerVerdict:
    """What one server proved."""

    server: NameServer
    verdict: ProofVerdict


class Panel(Protocol):
    """The servers that can be asked one question under one key."""

    def candidates(self) -> Sequence[NameServer]:
        """All servers, in the order in which they are to be asked."""
        ...

    async def ask(self, server: NameServer) -> ServerVerdict:
        """The verified answer of `server`.

        Raises DialError if it has none, StillSyncing if it cannot be judged yet.
        """
        ...

    def hedge_delay(self) -> float:
        """The s to wait for the servers that were asked before one more is."""
        ...

    def note_unanswered(self, server: NameServer, waited: float) -> None:
        """The look-up ended after `waited` s without an answer of `server`."""
        ...


class Quorum:
    """One look-up: asks servers of `panel` until `size` of them have answered."""

    def __init__(self, panel: Panel, size: int) -> None:
        self._panel: Final = panel
        self._size: Final = size
        self._candidates: Final[Iterator[NameServer]] = iter(panel.candidates())
        self._asked: Final[dict[asyncio.Task[ServerVerdict], NameServer]] = {}
        self._asked_at: Final[dict[str, float]] = {}
        self._answers: Final[list[ServerVerdict]] = []
        self._syncing = False
        self._stale = False

    async def run(self) -> list[ServerVerdict]:
        """Enough verified answers; raises TemporaryFailure."""
        try:
            for _ in range(self._size):
                self._ask_next()
            while not self._is_enough():
                await self._step()
            return self._answers
        finally:
            now = asyncio.get_running_loop().time()
            for task, server in self._asked.items():
                task.cancel()
                self._panel.note_unanswered(server, now - self._asked_at[server.label])
            await asyncio.gather(*self._asked, return_exceptions=True)

    def _missing(self) -> int:
        """How many answers more it takes, whatever server gives them."""
        found = any(answer.verdict.operation is not None for answer in self._answers)
        needed = self._size if found else max(self._size, ABSENCE_QUORUM)
        return needed - len(self._answers)

    def _is_enough(self) -> bool:
        operators = {answer.server.operator for answer in self._answers}
        others = {server.operator for server in self._asked.values()} - operators
        repeated = len(self._answers) - len(operators)
        return self._missing() + (repeated if others else 0) <= 0

    def _ask_next(self) -> bool:
        server = next(self._candidates, None)
        if server is None:
            return False
        loop = asyncio.get_running_loop()
        self._asked[loop.create_task(self._panel.ask(server))] = server
        self._asked_at[server.label] = loop.time()
        return True

    async def _step(self) -> None:
        if not self._asked and not self._ask_next():
            raise self._failure()
        done, _ = await asyncio.wait(
            self._asked, timeout=self._panel.hedge_delay(), return_when=asyncio.FIRST_COMPLETED
        )
        if not done and self._missing() > 0:
            self._ask_next()
        for task in done:
            self._take(task)

    def _take(self, task: asyncio.Task[ServerVerdict]) -> None:
        del self._asked[task]
        try:
            self._answers.append(task.result())
        except StillSyncing:
            self._syncing = True
        except DialError as error:
            self._stale = self._stale or error.kind is ErrorKind.STALE_KEY
        else:
            return
        if self._missing() > 0:
            self._ask_next()

    def _failure(self) -> TemporaryFailure:
        if self._stale:
            return TemporaryFailure(kind=ErrorKind.STALE_KEY)
        if self._syncing or not self._answers:
            return TemporaryFailure(kind=ErrorKind.NAME_BACKEND_DOWN)
        answered = len(self._answers)
        return TemporaryFailure(
            f"{answered} of {answered + self._missing()} name servers answered with a proof",
            kind=ErrorKind.NAME_NO_QUORUM,
        )
