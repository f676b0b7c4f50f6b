"""The embedded light client: names proven by work, asked of a quorum of servers.

Theory of operation
    `ElectrumBackend` composes the pool of connections, the header synchronisation and
    the verification.  A look-up asks as many servers as the quorum needs, each over a
    connection bound to the asking key.  A server that fails, lies, lags or is slow is
    replaced by the next one while the look-up goes on; a slow one may still answer.

    The quorum's newest verified operation is the value.  Absence takes the agreement of
    at least two servers.  With fewer answers than the quorum the look-up fails: nothing
    is ever concluded from the servers that happened to be reachable.  Several servers of
    one operator are a quorum only after all that were asked of others have failed.

    Who asks, and what, is seen by the servers of that key alone: headers come over
    connections of our own, and nothing learned for one key is kept for another, but which
    servers are of use to who has no connection to them (see `electrum_health`).

Invariants
    A value is returned only after `spv.verify`; no number in it is a server's word.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError, DialError, ErrorKind, RemoteProtocolError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.chain.anchor import best_anchor
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.merkle import Ambiguous
from isoproxy.namecoin.chain.params import MAINNET, Anchor, ChainParams, Checkpoint
from isoproxy.namecoin.chain.spv import DEFAULT_CONFIRMATIONS, Verdict, combine, expires_in
from isoproxy.namecoin.chain.store import HeaderStore
from isoproxy.namecoin.electrum.connector import Dials
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.header_sync import HeaderSync, Progress
from isoproxy.namecoin.electrum.lookup import NameQuestion, ServerLags, StillSyncing
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.scores import KeyScores, Scores
from isoproxy.namecoin.electrum.servers import SHIPPED, Server
from isoproxy.namecoin.electrum.session import ServerRefused
from isoproxy.namecoin.electrum.tls import PinStore, TlsPolicy
from isoproxy.namecoin.electrum.wire import AnswerTooLong
from isoproxy.namecoin.limits import MAX_NAME_BYTES

ABSENCE_QUORUM: Final = 2
_LEAST_HEDGE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ElectrumSettings:
    """Everything a user may set.  Times in s, `confirmations` in blocks.

    `max_tip_age` is how old the newest block may be by this computer's clock before
    look-ups fail: an hour without a block is common, a day without one is an eclipse.
    None does not look (test chains stand still).
    """

    network: ChainParams = MAINNET
    servers: Sequence[Server] = SHIPPED
    quorum: int = 2
    confirmations: int = DEFAULT_CONFIRMATIONS
    anchor: Anchor | None = None
    checkpoint: Checkpoint | None = None
    deadline: float = 45.0
    ready_wait: float = 30.0
    answer_timeout: float = 20.0
    hedge_after: float = 4.0
    max_tip_age: float | None = 86400.0
    pool: PoolSettings = field(default_factory=PoolSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)


@dataclass(frozen=True, slots=True)
class Health:
    """Counts of servers: all, those that answered last time, liars and laggards."""

    known: int
    up: int
    demoted: int


@dataclass(frozen=True, slots=True)
class _Answer:
    server: Server
    verdict: Verdict


class ElectrumBackend:
    """A `backend.Backend`; `start` before the first look-up, `close` at the end.

    `state_directory` (mode 0700, exists) keeps headers and certificates; None keeps
    nothing.  Raises ConfigError if no quorum is possible.
    """

    def __init__(
        self,
        dialer: Dials,
        isolator: Isolator,
        settings: ElectrumSettings | None = None,
        state_directory: Path | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings = settings or ElectrumSettings()
        if not 1 <= settings.quorum <= len(settings.servers):
            raise ConfigError(
                "names.electrum.quorum needs at least that many servers; add servers to "
                "names.electrum.servers or lower the quorum"
            )
        anchor = settings.anchor or best_anchor(settings.network, state_directory)
        self.chain = HeaderChain(settings.network, anchor)
        self._isolator = isolator
        self._wall_clock = wall_clock
        self._scores = Scores(settings.servers)
        self._key_scores = KeyScores(self._scores)
        self._leave = isolator.on_new_epoch(self._key_scores.forget)
        self.pool = ServerPool(
            dialer,
            isolator,
            settings.network,
            self._scores,
            TlsPolicy(PinStore(state_directory)),
            settings.pool,
        )
        self._store: HeaderStore | None = None
        if state_directory is not None:
            self._store = HeaderStore(state_directory, settings.network, anchor)
        self.sync = HeaderSync(
            self.chain, self._store, self.pool, settings.sync, settings.checkpoint, wall_clock
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Read the stored headers, begin to connect and to synchronise."""
        self.sync.restore()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.pool.run()), loop.create_task(self.sync.run())]

    async def close(self) -> None:
        """Close every connection and file; look-ups under way fail."""
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.pool.close()
        self._leave()
        if self._store is not None:
            self._store.close()

    def progress(self) -> Progress:
        """How far the headers are, for `isoproxy status`."""
        return self.sync.progress()

    def health(self) -> Health:
        """How many servers there are, answered last time, and are kept away from."""
        now = asyncio.get_running_loop().time()
        health = [self._scores.of(server) for server in self.settings.servers]
        return Health(
            known=len(health),
            up=sum(one.latency is not None and not one.failures for one in health),
            demoted=sum(now < max(one.liar_until, one.suspect_until) for one in health),
        )

    def reset_backoff(self) -> None:
        """Tor is back: try every server that could not be reached, now."""
        for scores in (self._scores, *self._key_scores):
            scores.reset_backoff()
        self.pool.nudge()
        self.sync.nudge()

    def on_block(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever the verified chain has a new tip."""
        self.sync.on_block = callback

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        """See `backend.Backend`."""
        if len(name) > MAX_NAME_BYTES:
            return Absent(ErrorKind.NAME_ABSENT)
        await self._wait_ready()
        question = NameQuestion(
            name, self.chain, self.settings.confirmations, self.settings.checkpoint
        )
        try:
            async with asyncio.timeout(self.settings.deadline):
                answers = await _Quorum(self, question, key).run()
        except TimeoutError:
            raise TemporaryFailure(kind=ErrorKind.NAME_TIMEOUT) from None
        return self._conclude(answers, key)

    async def _wait_ready(self) -> None:
        try:
            async with asyncio.timeout(self.settings.ready_wait):
                await self.sync.ready.wait()
        except TimeoutError:
            raise TemporaryFailure from None
        limit = self.settings.max_tip_age
        if limit is not None:
            age = self._wall_clock() - self.chain.time(self.chain.tip_height)
            if age > limit:
                self.sync.nudge()
                raise TemporaryFailure

    def _conclude(self, answers: Sequence[_Answer], key: IsolationKey) -> Found | Absent:
        verdict = combine([answer.verdict for answer in answers])
        servers = tuple(answer.server.label for answer in answers)
        self._suspect_the_ignorant(answers, verdict, self._key_scores.of(key))
        operation = verdict.operation
        if operation is None:
            return Absent(verdict.reason, servers)
        return Found(
            value=operation.update.value,
            height=operation.height,
            txid=operation.update.txid[::-1].hex(),
            expires_in=expires_in(operation.height, self.chain),
            evidence=Evidence.SPV_CONFIRMED,
            servers=servers,
        )

    def _suspect_the_ignorant(
        self, answers: Sequence[_Answer], best: Verdict, scores: Scores
    ) -> None:
        """Rank servers lower that knew less than another one proved."""
        if best.operation is None:
            return
        now = asyncio.get_running_loop().time()
        for answer in answers:
            known = answer.verdict.operation
            if known is None or known.height < best.operation.height:
                scores.mark_lagging(answer.server, now)

    # -- one server --------------------------------------------------------------

    async def _ask(self, question: NameQuestion, key: IsolationKey, server: Server) -> _Answer:
        """One server's verified answer; keeps the server's score.  Raises DialError."""
        scores = self._key_scores.of(key)
        loop = asyncio.get_running_loop()
        session = await self.pool.session(key, server)
        began = loop.time()
        try:
            async with asyncio.timeout(self.settings.answer_timeout):
                verdict = await question.ask(session)
        except ServerLags:
            scores.mark_lagging(server, loop.time())
            self.sync.nudge()
            raise
        except TimeoutError:
            scores.failed(server, loop.time())
            if session.silence >= self.settings.answer_timeout:
                self.pool.drop(key, server)
            raise DialError(kind=ErrorKind.TTL_EXPIRED) from None
        except ServerRefused as refusal:
            scores.failed(server, loop.time())
            raise DialError(kind=refusal.kind) from None
        except (AnswerTooLong, Ambiguous) as neither:
            self._scores.mark_lagging(server, loop.time())
            self.pool.drop(key, server)
            raise DialError(kind=neither.kind) from None
        except RemoteProtocolError as lie:
            scores.record_invalid_proof(server, loop.time())
            self.pool.drop(key, server)
            raise DialError(kind=lie.kind) from None
        scores.answered(server, loop.time() - began)
        return _Answer(server, verdict)

    def _order(self, key: IsolationKey) -> list[Server]:
        now = asyncio.get_running_loop().time()
        return self._key_scores.of(key).choose(now, self.pool.servers_of(key))

    def _note_wait(self, key: IsolationKey, server: Server, since: float) -> None:
        """A look-up ended without this server's answer: how long was it waited for?"""
        waited = asyncio.get_running_loop().time() - since
        if waited > self._hedge_delay():
            self._key_scores.of(key).was_slow(server, waited)

    def _hedge_delay(self) -> float:
        """The s to wait for the servers that were asked before one more is.

        What servers usually take decides, not what those took that were asked: who waits
        for a slow one is to wait no longer than others.
        """
        known = [
            latency
            for server in self.settings.servers
            if (latency := self._scores.of(server).latency) is not None
        ]
        if not known:
            return self.settings.hedge_after
        usual = statistics.median_low(known)
        return min(self.settings.hedge_after, max(_LEAST_HEDGE_S, 3 * usual))


class _Quorum:
    """One look-up: asks servers until enough of them have answered."""

    def __init__(self, backend: ElectrumBackend, question: NameQuestion, key: IsolationKey) -> None:
        self._backend = backend
        self._question = question
        self._key = key
        self._candidates: Iterator[Server] = iter(backend._order(key))
        self._asked: dict[asyncio.Task[_Answer], Server] = {}
        self._asked_at: dict[str, float] = {}
        self._answers: list[_Answer] = []
        self._syncing = False
        self._stale = False

    async def run(self) -> list[_Answer]:
        """Enough verified answers; raises TemporaryFailure."""
        try:
            for _ in range(self._backend.settings.quorum):
                self._ask_next()
            while not self._is_enough():
                await self._step()
            return self._answers
        finally:
            for task, server in self._asked.items():
                task.cancel()
                self._backend._note_wait(self._key, server, self._asked_at[server.label])
            await asyncio.gather(*self._asked, return_exceptions=True)

    def _missing(self) -> int:
        """How many answers more it takes, whoever gives them."""
        found = any(answer.verdict.operation is not None for answer in self._answers)
        quorum = self._backend.settings.quorum
        needed = quorum if found else max(quorum, ABSENCE_QUORUM)
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
        task = asyncio.get_running_loop().create_task(
            self._backend._ask(self._question, self._key, server)
        )
        self._asked[task] = server
        self._asked_at[server.label] = asyncio.get_running_loop().time()
        return True

    async def _step(self) -> None:
        if not self._asked and not self._ask_next():
            raise self._failure()
        delay = self._backend._hedge_delay()
        done, _ = await asyncio.wait(
            self._asked, timeout=delay, return_when=asyncio.FIRST_COMPLETED
        )
        if not done and self._missing() > 0:
            self._ask_next()
        for task in done:
            self._take(task)

    def _take(self, task: asyncio.Task[_Answer]) -> None:
        del self._asked[task]
        try:
            self._answers.append(task.result())
        except StillSyncing:
            self._syncing = True
            self._backend.sync.nudge()
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
        return TemporaryFailure(kind=ErrorKind.NAME_UNVERIFIABLE)
