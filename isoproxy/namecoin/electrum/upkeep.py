"""The connections over which headers come: begun with whoever answers first.

Theory of operation
    `connections` servers are tried at once.  Those that are silent for `beside` s are tried
    on, and as many others beside them.  Whatever answers is of use at once; when there are
    enough, the tries still under way are given up, and count as failures.  A connection
    that ends is replaced in the same way.

    The order learns from headers alone: servers that answered the last time come first,
    among them those that kept their promises, different operators first.

Invariants
    These connections never carry a name.  What servers do here is known here alone: it has
    no part in which servers are asked for names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from isoproxy.errors import DialError, IsoproxyError, RemoteProtocolError
from isoproxy.namecoin.chain.header_chain import HeaderFromTheFuture
from isoproxy.namecoin.electrum.header_range import RangeTooSlow
from isoproxy.namecoin.electrum.pool import ServerPool
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import ElectrumSession, ServerRefused
from isoproxy.namecoin.electrum.wire import AnswerTooLong

TOO_MUCH: Final = (ServerRefused, AnswerTooLong, RangeTooSlow)
"""What a server, or we, say to a range that is too long."""
_NO_LIES: Final = (*TOO_MUCH, HeaderFromTheFuture)
_LONGEST_WAIT_S: Final = 1.0
"""Until it is looked again which servers may be tried."""


class Upkeep:
    """See the module's text.  `run` keeps `sessions` open; `on_change()` is called when
    one begins, ends or has a new tip."""

    def __init__(
        self, pool: ServerPool, connections: int, beside: float, on_change: Callable[[], None]
    ) -> None:
        self.scores = Scores(pool.scores.servers)
        self.sessions: dict[str, tuple[NameServer, ElectrumSession]] = {}
        self._pool = pool
        self._connections = connections
        self._beside = beside
        self._on_change = on_change
        self._tries: dict[str, tuple[asyncio.Task[None], float]] = {}
        self._answered: set[str] = set()
        self._step = asyncio.Event()
        self.has_future_headers = False
        """Whether the last server that failed has headers in the future by our clock."""

    async def run(self) -> None:
        """Open what is missing, until cancelled; then close all."""
        try:
            while True:
                self._step.clear()
                self._close_ended()
                self._try_missing()
                wait = min(self._beside, _LONGEST_WAIT_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._step.wait()
        finally:
            tries = [task for task, _ in self._tries.values()]
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
            for label in list(self.sessions):
                self.close(label)

    def _close_ended(self) -> None:
        for label, (_, session) in list(self.sessions.items()):
            if session.closed.is_set():
                self.close(label)

    def _try_missing(self) -> None:
        now = asyncio.get_running_loop().time()
        missing = self._connections - len(self.sessions)
        if missing <= 0:
            for task, _ in self._tries.values():
                task.cancel()
            return
        young = sum(now - began < self._beside for _, began in self._tries.values())
        if not young:
            missing = max(missing, len(self._tries))
        for server in self._due(now)[: max(0, missing - young)]:
            task = asyncio.get_running_loop().create_task(self._try(server))
            self._tries[server.label] = task, now

    def _due(self, now: float) -> list[NameServer]:
        """Servers that may be tried, those first that answered the last time."""
        due = [
            server
            for server in self.scores.choose(now)
            if server.label not in self.sessions
            and server.label not in self._tries
            and self.scores.is_due(server, now)
        ]
        return sorted(due, key=lambda server: server.label not in self._answered)

    async def _try(self, server: NameServer) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        try:
            session = await self._pool.reserve(server)
        except IsoproxyError as error:
            self._answered.discard(server.label)
            self._note(server, error)
        except asyncio.CancelledError:
            if now() - began >= self._beside:
                self._answered.discard(server.label)
                self.scores.failed(server, now())
            raise
        else:
            self._answered.add(server.label)
            session.on_tip = self._changed
            self.sessions[server.label] = (server, session)
        finally:
            del self._tries[server.label]
            self._changed()

    def _changed(self) -> None:
        self._step.set()
        self._on_change()

    def session(self, label: str) -> tuple[NameServer, ElectrumSession]:
        """The connection to a server; raises DialError if there is none any more."""
        if label not in self.sessions:
            raise DialError
        return self.sessions[label]

    def close(self, label: str) -> None:
        """Stop using a server's connection."""
        _, session = self.sessions.pop(label)
        session.on_tip = lambda: None
        session.close()
        self._step.set()

    def blame(self, label: str, error: BaseException) -> None:
        """Stop using a server's connection; what it did decides for how long."""
        if label in self.sessions:
            self._note(self.sessions[label][0], error)
            self.close(label)

    def _note(self, server: NameServer, error: BaseException) -> None:
        now = asyncio.get_running_loop().time()
        self.has_future_headers = isinstance(error, HeaderFromTheFuture)
        if isinstance(error, RemoteProtocolError) and not isinstance(error, _NO_LIES):
            self.scores.record_invalid_proof(server, now)
        else:
            self.scores.failed(server, now)

    def delivered(self, label: str) -> None:
        """A server has kept a promise: what it failed in before is forgiven."""
        if label in self.sessions:
            now = asyncio.get_running_loop().time()
            self.scores.answered(self.sessions[label][0], 0.0, now)
