"""How many servers must agree on a name, and which one is asked next.

Theory of operation
    A look-up connects to as many servers as the quorum needs, all at once, and to others
    beside those that are silent; it asks the first that answer, as many as it needs, of
    different operators as long as there is hope of one.  A server that fails is replaced by
    the next candidate.  One that is slow to answer is asked on, beside the next candidate (a
    hedged request), and may still answer.

    Absence takes the agreement of at least two servers.  With fewer answers than the
    quorum the look-up fails: nothing is ever concluded from the servers that happened to
    be reachable.  Several servers of one operator are a quorum only after all that were
    asked of others have failed.  Once one server has answered, those that are silent for
    `SILENCE_S` more, all of them tried, count as failed.

Invariants
    `Quorum` knows neither keys nor connections: a `Panel` asks one server and keeps its
    score.  After `end` nothing is under way any more.  A name is told to no more servers than
    are needed, but for those beside slow ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.chain.spv import ProofVerdict
from isoproxy.namecoin.electrum.lookup import StillSyncing
from isoproxy.namecoin.electrum.servers import NameServer

ABSENCE_QUORUM: Final = 2
BESIDE_S: Final = 1.5
"""What a server may be silent for until another one is connected to beside it."""
SILENCE_S: Final = 8.0
_LOOK_AGAIN_S: Final = 0.5
_NEWER: Final = (
    "Name servers have newer blocks than our headers, and what they hold decides; try again in "
    "a moment."
)


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

    async def connect(self, server: NameServer) -> None:
        """Have a connection to `server`; raises DialError."""
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


@dataclass(frozen=True, slots=True)
class _Begun:
    """A server that is being connected to, or asked, since `at`."""

    server: NameServer
    at: float


class Quorum:
    """One look-up: asks servers of `panel` until `size` of them have answered.

    `connect` may be awaited before `run`; `end` must be, after it.
    """

    def __init__(self, panel: Panel, size: int) -> None:
        self._panel: Final = panel
        self._size: Final = size
        self._candidates: Final = list(panel.candidates())
        self._connecting: Final[dict[asyncio.Task[None], _Begun]] = {}
        self._connected: Final[list[NameServer]] = []
        self._asked: Final[dict[asyncio.Task[ServerVerdict], _Begun]] = {}
        self._answers: Final[list[ServerVerdict]] = []
        self._ended: Final[list[asyncio.Task[Any]]] = []
        self._hedges = 0
        self._moved_at = 0.0
        self._heard_at = 0.0
        self._syncing = False
        self._failures: Final[list[ErrorKind]] = []

    async def connect(self) -> None:
        """Have as many connections as it takes, asking nothing yet, if they can be had."""
        while len(self._connected) < self._size:
            self._connect_beside(self._size - len(self._connected))
            if not self._connecting:
                return
            await self._wait()

    async def run(self) -> list[ServerVerdict]:
        """Enough verified answers; raises TemporaryFailure."""
        self._moved_at = _now()
        while not self._is_enough():
            self._ask_connected()
            self._connect_beside(self._unasked() - len(self._unheard(self._connected)))
            if not self._asked and not self._connecting:
                raise self._failure()
            await self._wait()
            if self._asked and _now() - self._moved_at >= self._panel.hedge_delay():
                self._hedges += self._missing() > 0
                self._moved_at = _now()
            self._give_up_on_the_silent()
        return self._answers

    async def end(self) -> None:
        """Give up what is under way."""
        self._give_up()
        await asyncio.gather(*self._ended, return_exceptions=True)

    # -- what is enough ----------------------------------------------------------------

    def _missing(self) -> int:
        """How many answers more it takes, whatever server gives them."""
        found = any(answer.verdict.operation is not None for answer in self._answers)
        needed = self._size if found else max(self._size, ABSENCE_QUORUM)
        return needed - len(self._answers)

    def _is_enough(self) -> bool:
        operators = {answer.server.operator for answer in self._answers}
        others = {begun.server.operator for begun in self._asked.values()} - operators
        repeated = len(self._answers) - len(operators)
        return self._missing() + (repeated if others else 0) <= 0

    def _give_up_on_the_silent(self) -> None:
        """Once one has answered and all were tried, for long enough: forget the others."""
        begun = [*self._asked.values(), *self._connecting.values()]
        if not self._answers or self._candidates or not begun:
            return
        if _now() - max(self._heard_at, *(one.at for one in begun)) < SILENCE_S:
            return
        self._give_up()

    def _give_up(self) -> None:
        for task, begun in (*self._asked.items(), *self._connecting.items()):
            task.cancel()
            self._ended.append(task)
            self._panel.note_unanswered(begun.server, _now() - begun.at)
        self._asked.clear()
        self._connecting.clear()

    # -- whom to connect to, and whom to ask ---------------------------------------------

    def _unasked(self) -> int:
        """How many are to be asked now, beside those that are."""
        needed = max(0, self._missing()) if self._answers else self._size
        return needed + self._hedges - len(self._asked)

    def _connect_beside(self, wanted: int) -> None:
        """Have `wanted` servers more connected to; beside silent ones, as many as there are."""
        young = sum(_now() - begun.at < BESIDE_S for begun in self._connecting.values())
        if wanted > 0 and not young:
            wanted = max(wanted, len(self._connecting))
        for _ in range(wanted - young):
            if not self._candidates:
                return
            server = self._candidates.pop(0)
            task = asyncio.get_running_loop().create_task(self._panel.connect(server))
            self._connecting[task] = _Begun(server, _now())

    def _ask_connected(self) -> None:
        while self._unasked() > 0 and (server := self._next_connected()) is not None:
            task = asyncio.get_running_loop().create_task(self._panel.ask(server))
            self._asked[task] = _Begun(server, _now())
            self._moved_at = _now()

    def _next_connected(self) -> NameServer | None:
        """A connected server of an operator not heard yet, or any if there is none to come."""
        to_come = self._candidates + [
            begun.server for begun in self._connecting.values() if _now() - begun.at < SILENCE_S
        ]
        others = self._unheard(self._connected)
        if not others and self._unheard(to_come):
            return None
        server = next(iter(others or self._connected), None)
        if server is not None:
            self._connected.remove(server)
        return server

    def _unheard(self, servers: Sequence[NameServer]) -> list[NameServer]:
        """Those of operators of whom no server answered or is asked."""
        heard = {answer.server.operator for answer in self._answers}
        heard |= {begun.server.operator for begun in self._asked.values()}
        return [server for server in servers if server.operator not in heard]

    # -- what comes --------------------------------------------------------------------------

    def _next_look(self) -> float:
        """The s until something is to be done, if nothing comes."""
        times = [begun.at + BESIDE_S for begun in self._connecting.values()]
        if self._asked:
            times.append(self._moved_at + self._panel.hedge_delay())
        ahead = [at - _now() for at in times if at > _now()]
        return min(ahead, default=_LOOK_AGAIN_S)

    async def _wait(self) -> None:
        done, _ = await asyncio.wait(
            {*self._asked, *self._connecting},
            timeout=self._next_look(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        for connecting in [task for task in self._connecting if task in done]:
            self._take_connection(connecting)
        for asked in [task for task in self._asked if task in done]:
            self._take_answer(asked)

    def _take_connection(self, task: asyncio.Task[None]) -> None:
        server = self._connecting.pop(task).server
        try:
            task.result()
        except DialError as error:
            self._failures.append(error.kind)
        else:
            self._connected.append(server)

    def _take_answer(self, task: asyncio.Task[ServerVerdict]) -> None:
        del self._asked[task]
        self._moved_at = _now()
        try:
            self._answers.append(task.result())
            self._heard_at = _now()
        except StillSyncing:
            self._syncing = True
        except DialError as error:
            self._failures.append(error.kind)

    def _failure(self) -> TemporaryFailure:
        if ErrorKind.STALE_KEY in self._failures:
            return TemporaryFailure(kind=ErrorKind.STALE_KEY)
        if self._syncing:
            return TemporaryFailure(_NEWER, kind=ErrorKind.NAME_SYNCHRONISING)
        if self._answers:
            return self._no_quorum()
        if self._failures and {*self._failures} == {ErrorKind.TOR_UNREACHABLE}:
            return TemporaryFailure(kind=ErrorKind.TOR_UNREACHABLE)
        return TemporaryFailure(
            f"None of {len(self._failures)} name servers gave an answer through Tor that could be "
            "verified; see 'isoproxy doctor'."
        )

    def _no_quorum(self) -> TemporaryFailure:
        """Fewer have answered than it takes; an absence takes two whatever the settings."""
        answered, missing = len(self._answers), self._missing()
        text = f"{answered} of {answered + missing} name servers answered with a proof; "
        if answered >= self._size:
            text += (
                "this one says that the name does not exist, which takes two servers: add "
                "another to names.electrum.servers."
            )
        else:
            text += "try again, or add servers to names.electrum.servers."
        return TemporaryFailure(text, kind=ErrorKind.NAME_NO_QUORUM)


def _now() -> float:
    return asyncio.get_running_loop().time()
