"""The embedded light client: names proven by work, asked of a quorum of servers.

This is our own client of the Electrum protocol (https://electrumx.readthedocs.io, with
Namecoin's `blockchain.name.get_value_proof`).  It is not Electrum-NMC, which the backend in
`namecoin.rpc.electrum_nmc` asks.

Theory of operation
    `ElectrumBackend` composes the pool of connections, the header synchronisation and
    the verification.  A look-up is a `Quorum` over a panel of servers, each asked over a
    connection bound to the asking key.  The newest verified operation of the quorum is
    the value.

    Questions are seen by the servers of their key alone: headers come over connections of
    our own, and nothing learned for one key is kept for another.  How long a server is
    waited for before one more is asked depends on the connections of that key alone.

Invariants
    A value is returned only after `spv.verify`; no number in it is a server's word.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isoproxy.errors import (
    ConfigError,
    DialError,
    ErrorKind,
    IsoproxyError,
    RemoteProtocolError,
)
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.chain.anchor import best_anchor
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.merkle import Ambiguous
from isoproxy.namecoin.chain.params import MAINNET, Anchor, ChainParams, Checkpoint
from isoproxy.namecoin.chain.spv import DEFAULT_CONFIRMATIONS, ProofVerdict, combine, expires_in
from isoproxy.namecoin.chain.store import HeaderStore
from isoproxy.namecoin.electrum.connector import Dials
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.header_sync import HeaderSync
from isoproxy.namecoin.electrum.lookup import NameQuestion, ServerLags
from isoproxy.namecoin.electrum.obstacle import Obstacle, Standing
from isoproxy.namecoin.electrum.pins import PinStore
from isoproxy.namecoin.electrum.pool import PoolSettings, ServerPool
from isoproxy.namecoin.electrum.progress import Progress
from isoproxy.namecoin.electrum.quorum import Quorum, ServerVerdict
from isoproxy.namecoin.electrum.scores import KeyScores, Scores, is_up
from isoproxy.namecoin.electrum.servers import SHIPPED, NameServer
from isoproxy.namecoin.electrum.session import ElectrumSession, ServerRefused
from isoproxy.namecoin.electrum.tls import CertificateProblem, TlsPolicy
from isoproxy.namecoin.electrum.wire import AnswerTooLong
from isoproxy.namecoin.limits import MAX_NAME_BYTES
from isoproxy.tor.observers import Observers

_LEAST_HEDGE_S: Final = 0.5
_RANDOM: Final = random.SystemRandom()
_LOOK_S: Final = 0.25
"""How often a look-up that waits looks whether waiting can still help."""
_TOR_WAIT_S: Final = 5.0
"""How long a look-up waits for Tor to answer at the start."""


@dataclass(frozen=True, slots=True)
class ElectrumSettings:
    """Everything a user may set.  Times in s, `confirmations` in blocks.

    `max_tip_age` is how old the newest block may be by this computer's clock before
    look-ups fail: an hour without a block is common, a day without one is an eclipse.
    None does not look (test chains stand still).  Look-ups that waited for our headers begin
    within `ready_spread`, each when chance will have it.
    """

    network: ChainParams = MAINNET
    servers: Sequence[NameServer] = SHIPPED
    quorum: int = 2
    confirmations: int = DEFAULT_CONFIRMATIONS
    anchor: Anchor | None = None
    checkpoint: Checkpoint | None = None
    deadline: float = 45.0
    ready_wait: float = 30.0
    ready_spread: float = 2.0
    answer_timeout: float = 20.0
    hedge_after: float = 4.0
    max_tip_age: float | None = 86400.0
    pool: PoolSettings = field(default_factory=PoolSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)


@dataclass(frozen=True, slots=True)
class Health:
    """Counts of servers: all, those that answered last time, and those that proved something
    wrong, as far as our own connections and headers tell; keys know of their own look-ups."""

    known: int
    up: int
    demoted: int


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
        self._wall_clock = wall_clock
        scores = Scores(settings.servers)
        self.key_scores = KeyScores(scores)
        self._leave = isolator.on_new_epoch(self.key_scores.forget)
        self._leave_renewals = isolator.on_renewal(
            lambda: self.key_scores.keep(isolator.is_current)
        )
        self._tls = TlsPolicy(PinStore(state_directory), wall_clock)
        self.pool = ServerPool(dialer, isolator, settings.network, scores, self._tls, settings.pool)
        self._store: HeaderStore | None = None
        if state_directory is not None:
            self._store = HeaderStore(state_directory, settings.network, anchor)
        self.sync = HeaderSync(
            self.chain, self._store, self.pool, settings.sync, settings.checkpoint, wall_clock
        )
        self._blocks: Observers[None] = Observers()
        self.sync.on_block = lambda: self._blocks.notify(None)
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
        self._leave_renewals()
        if self._store is not None:
            self._store.close()

    def progress(self) -> Progress:
        """How far the headers are, for `isoproxy status`."""
        return self.sync.progress()

    @property
    def certificates(self) -> Mapping[str, CertificateProblem]:
        """By label, the servers whose certificate was refused when they were last met."""
        return self._tls.problems

    def health(self) -> Health:
        """How many servers there are, answered last time, and are kept away from."""
        now = asyncio.get_running_loop().time()
        health = [
            (self.pool.scores.of(server), self.sync.scores.of(server))
            for server in self.settings.servers
        ]
        return Health(
            known=len(health),
            up=sum(is_up(*both) for both in health),
            demoted=sum(any(now < one.liar_until for one in both) for both in health),
        )

    def obstacle(self) -> Obstacle | None:
        """What keeps look-ups from being answered now, None if nothing is known to."""
        chain, scores = self.chain, self.sync.scores
        untried = sum(not scores.of(server).failures for server in self.settings.servers)
        return Standing(
            started=bool(self._tasks),
            ready=self.sync.ready.is_set(),
            progress=self.progress(),
            servers=len(self.settings.servers),
            connected=self.pool.counts()[2],
            untried=untried,
            last_failure=self.pool.last_failure,
            tip_age=self._wall_clock() - chain.time(chain.tip_height) if chain.is_anchored else 0.0,
            max_tip_age=self.settings.max_tip_age,
            is_future=self.sync.upkeep.has_future_headers,
        ).obstacle()

    def reset_backoff(self) -> None:
        """Tor is back: try every server that could not be reached, now."""
        for scores in (self.pool.scores, self.sync.scores, *self.key_scores):
            scores.reset_backoff()
        self.sync.nudge()

    def on_block(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback()` whenever the verified chain has a new tip.

        Returns a function that ends this.
        """
        return self._blocks.add(lambda _: callback())

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        """See `backend.Backend`."""
        if len(name) > MAX_NAME_BYTES:
            return Absent(ErrorKind.NAME_ABSENT)
        question = NameQuestion(
            name, self.chain, self.settings.confirmations, self.settings.checkpoint
        )
        quorum = Quorum(_Panel(self, question, key), self.settings.quorum)
        try:
            await self._wait_ready(quorum)
            async with asyncio.timeout(self.settings.deadline):
                answers = await quorum.run()
        except TimeoutError:
            raise TemporaryFailure(kind=ErrorKind.NAME_TIMEOUT) from None
        finally:
            await quorum.end()
        return self._conclude(answers, key)

    async def _wait_ready(self, quorum: Quorum) -> None:
        """Wait for our headers; connect meanwhile, and go on after a delay of one's own.

        Those that wait would else all begin at one moment.
        """
        if not self.sync.ready.is_set():
            connecting = asyncio.get_running_loop().create_task(quorum.connect())
            try:
                await self._until_ready()
            finally:
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
            await asyncio.sleep(_RANDOM.uniform(0.0, self.settings.ready_spread))
        obstacle = self.obstacle()
        if obstacle is not None:
            raise obstacle.failure

    async def _until_ready(self) -> None:
        """Wait as long as that can help; raises TemporaryFailure, which says why."""
        clock = asyncio.get_running_loop().time
        wait = self.settings.ready_wait
        end = clock() + (wait if self._tasks else min(wait, _TOR_WAIT_S))
        while not self.sync.ready.is_set():
            obstacle = self.obstacle()
            if obstacle is not None and (obstacle.lasting or clock() >= end):
                raise obstacle.failure
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self.sync.ready.wait()

    def _conclude(self, answers: Sequence[ServerVerdict], key: IsolationKey) -> Found | Absent:
        verdict = combine([answer.verdict for answer in answers])
        servers = tuple(answer.server.label for answer in answers)
        self._suspect_the_ignorant(answers, verdict, self.key_scores.of(key))
        operation = verdict.operation
        if operation is None:
            return Absent(verdict.reason, servers)
        return Found(
            value=operation.update.value,
            height=operation.height,
            txid=operation.update.txid[::-1].hex(),
            expires_in=expires_in(operation.height, self.chain),
            evidence=Evidence.SPV_SAMPLED if self.chain.unproven else Evidence.SPV_CONFIRMED,
            servers=servers,
        )

    def _suspect_the_ignorant(
        self, answers: Sequence[ServerVerdict], best: ProofVerdict, scores: Scores
    ) -> None:
        """Rank servers lower that knew less than another one proved."""
        if best.operation is None:
            return
        now = asyncio.get_running_loop().time()
        for answer in answers:
            known = answer.verdict.operation
            if known is None or known.height < best.operation.height:
                scores.mark_lagging(answer.server, now)


class _Panel:
    """The servers of `backend` as one look-up under one key asks them."""

    def __init__(self, backend: ElectrumBackend, question: NameQuestion, key: IsolationKey) -> None:
        self._pool: Final = backend.pool
        self._settings: Final = backend.settings
        self._scores: Final = backend.key_scores.of(key)
        self._question: Final = question
        self._key: Final = key

    def candidates(self) -> Sequence[NameServer]:
        now = asyncio.get_running_loop().time()
        return self._scores.choose(now, self._pool.servers_of(self._key))

    async def connect(self, server: NameServer) -> None:
        """As `quorum.Panel` has it; keeps the server's score."""
        await self._session(server)

    async def _session(self, server: NameServer) -> ElectrumSession:
        try:
            return await self._pool.session(self._key, server)
        except IsoproxyError as error:
            if error.kind not in (ErrorKind.STALE_KEY, ErrorKind.BUSY):
                self._scores.failed(server, asyncio.get_running_loop().time())
            raise DialError(kind=error.kind) from None

    async def ask(self, server: NameServer) -> ServerVerdict:
        """As `quorum.Panel` has it; keeps the server's score."""
        scores, key = self._scores, self._key
        loop = asyncio.get_running_loop()
        session = await self._session(server)
        began = loop.time()
        try:
            async with asyncio.timeout(self._settings.answer_timeout):
                verdict = await self._question.ask(session)
        except ServerLags:
            scores.mark_lagging(server, loop.time())
            raise
        except TimeoutError:
            scores.failed(server, loop.time())
            if session.silence >= self._settings.answer_timeout:
                self._pool.drop(key, server)
            raise DialError(kind=ErrorKind.TTL_EXPIRED) from None
        except ServerRefused as refusal:
            scores.failed(server, loop.time())
            raise DialError(kind=refusal.kind) from None
        except (AnswerTooLong, Ambiguous) as neither:
            scores.mark_lagging(server, loop.time())
            self._pool.drop(key, server)
            raise DialError(kind=neither.kind) from None
        except RemoteProtocolError as lie:
            scores.record_invalid_proof(server, loop.time())
            self._pool.drop(key, server)
            raise DialError(kind=lie.kind) from None
        scores.answered(server, loop.time() - began, loop.time())
        return ServerVerdict(server, verdict)

    def note_unanswered(self, server: NameServer, waited: float) -> None:
        if waited > self.hedge_delay():
            self._scores.was_slow(server, waited)

    def hedge_delay(self) -> float:
        """The handshakes of this key's own connections say how long an answer takes.  What
        other connections say would be a mark that all identities of this client bear.
        """
        trips = self._pool.round_trips(self._key)
        if not trips:
            return self._settings.hedge_after
        usual = statistics.median_low(trips)
        return min(self._settings.hedge_after, max(_LEAST_HEDGE_S, 3 * usual))
