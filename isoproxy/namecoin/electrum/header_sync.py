"""Keeping our header chain at the tip, in the background, at the servers' pace.

Theory of operation
    A few connections of our own (never a user's) are subscribed to new headers.  They are
    opened at once, end by clocks as all others do, and are replaced.  Each round does
    what is needed, in this order:

    1. *Bootstrap*: the trust anchor and the few headers below it that the rules need.
    2. *Forward* to the tip that servers claim, each range asked of another server, every
       header checked (`chain.Branch`).  Until this is done once, nothing is `ready`.
    3. *Backward* by hash links, the newest first, as far down as a name can live: a name
       renewed yesterday can be proven long before one renewed eight months ago.

    A server whose headers do not continue our chain is asked for the fork point; its
    branch replaces ours if it has more work.  Wrong headers, or fewer than a server said
    it has, cost it its reputation, and the range is asked of another one.

    How one range is fetched and read, at the servers' pace and without keeping anybody
    waiting, is `header_range`'s.

Invariants
    The chain and the store change only here, by whole verified ranges, in that order.
    A server that keeps us from what others have is gone by a deadline: what it claimed
    when a range was asked for, it must deliver.  What servers do here is known here alone:
    it has no part in which servers are asked for names, and no look-up begins a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import DialError, IsoproxyError, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import Header
from isoproxy.namecoin.chain.cooperative import run_cooperatively
from isoproxy.namecoin.chain.header_chain import (
    Branch,
    HeaderChain,
    HeaderFromTheFuture,
    first_height_needed,
)
from isoproxy.namecoin.chain.params import Checkpoint
from isoproxy.namecoin.chain.store import HeaderStore
from isoproxy.namecoin.electrum import header_range
from isoproxy.namecoin.electrum.header_range import (
    HeaderRanges,
    Miscounted,
    RangeTooSlow,
    SyncSettings,
)
from isoproxy.namecoin.electrum.pool import ServerPool
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.namecoin.electrum.session import ElectrumSession, ServerRefused
from isoproxy.namecoin.electrum.wire import AnswerTooLong

_FIRST_FORK_STEP: Final = 8
_TOO_MUCH: Final = (ServerRefused, AnswerTooLong, RangeTooSlow)
"""What a server, or we, say to a range that is too long."""
_NO_LIES: Final = (*_TOO_MUCH, HeaderFromTheFuture)


@dataclass(frozen=True, slots=True)
class Progress:
    """Heights held (`base`...`tip`), claimed by servers (`target`), and `wanted_base`,
    down to which a name can live."""

    base: int
    tip: int
    target: int
    wanted_base: int

    @property
    def is_complete(self) -> bool:
        return self.tip >= self.target and self.base <= self.wanted_base


class HeaderSync:
    """See the module's text; `run` does the work, `ready` says that lookups may start."""

    def __init__(
        self,
        chain: HeaderChain,
        store: HeaderStore | None,
        pool: ServerPool,
        settings: SyncSettings | None = None,
        checkpoint: Checkpoint | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.chain = chain
        self._store = store
        self._pool = pool
        self.scores = Scores(pool.scores.servers)
        self._settings = settings or SyncSettings()
        self._ranges = HeaderRanges(self._settings)
        self._checkpoint = checkpoint
        self._wall_clock = wall_clock
        self._first_height_needed = first_height_needed(chain.network, chain.anchor)
        self._sessions: dict[str, tuple[NameServer, ElectrumSession]] = {}
        self._weaker: dict[str, bytes] = {}
        self._wake = asyncio.Event()
        self.ready = asyncio.Event()
        self.on_block: Callable[[], None] = lambda: None

    # -- what others look at ----------------------------------------------------

    def restore(self) -> None:
        """Take back what an earlier run stored; what does not fit is forgotten."""
        if self._store is not None:
            self._store.restore(self.chain, int(self._wall_clock()))

    @property
    def wanted_base(self) -> int:
        """The lowest height at which an unexpired name can have been renewed."""
        lowest = max(0, self.chain.tip_height - self.chain.network.expiry)
        if self._checkpoint is not None:
            lowest = max(lowest, self._checkpoint.height + 1)
        return lowest

    def progress(self) -> Progress:
        """Where the synchronisation stands."""
        claims = [session.claimed_height for _, session in self._sessions.values()]
        tip = self.chain.tip_height
        return Progress(self.chain.base_height, tip, max([tip, *claims]), self.wanted_base)

    def nudge(self) -> None:
        """Begin the next round now."""
        self._wake.set()

    # -- the work -----------------------------------------------------------------

    async def run(self) -> None:
        """Synchronise until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._open_sessions()
                await self._round()
                if self._sessions and self._is_waiting():
                    await self._pause(self._settings.idle)
                elif not self._sessions:
                    await self._pause(1.0)
        finally:
            for label in list(self._sessions):
                self._close(label)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _is_waiting(self) -> bool:
        return self.chain.is_anchored and not self._ahead() and not self._is_backfilling()

    def _is_backfilling(self) -> bool:
        return self.chain.is_anchored and self.chain.base_height > self.wanted_base

    async def _open_sessions(self) -> None:
        for label, (_, session) in list(self._sessions.items()):
            if session.closed.is_set():
                self._close(label)
        now = asyncio.get_running_loop().time()
        due = [
            server
            for server in self.scores.choose(now)
            if server.label not in self._sessions and self.scores.is_due(server, now)
        ]
        missing = due[: self._settings.connections - len(self._sessions)]
        await asyncio.gather(*(self._open(server) for server in missing))

    async def _open(self, server: NameServer) -> None:
        try:
            session = await self._pool.reserve(server)
        except IsoproxyError as error:
            self._note(server, error)
            return
        session.on_tip = self._wake.set
        self._sessions[server.label] = (server, session)

    def _close(self, label: str) -> None:
        _, session = self._sessions.pop(label)
        session.on_tip = lambda: None
        session.close()

    def _blame(self, label: str, error: BaseException) -> None:
        """Stop using a server's connection; what it did decides how long."""
        if label not in self._sessions:
            return
        server, _ = self._sessions[label]
        if isinstance(error, _TOO_MUCH):
            self._ranges.ask_less(label)
        self._note(server, error)
        self._close(label)

    def _note(self, server: NameServer, error: BaseException) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(error, RemoteProtocolError) and not isinstance(error, _NO_LIES):
            self.scores.record_invalid_proof(server, now)
        else:
            self.scores.failed(server, now)

    def _delivered(self, label: str) -> None:
        """A server has kept a promise: what it failed in before is forgiven."""
        if label in self._sessions:
            self.scores.answered(self._sessions[label][0], 0.0)

    async def _round(self) -> None:
        if not self.chain.is_anchored:
            await self._bootstrap()
        if not self.chain.is_anchored:
            return
        await self._forward()
        if self._agrees_with_a_server():
            self.ready.set()
        if self._is_backfilling():
            await self._backward()

    def _agrees_with_a_server(self) -> bool:
        for _, session in self._sessions.values():
            tip = session.tip
            if tip is not None and tip.height in self.chain:
                claimed = Header.parse(tip.raw).block_hash
                if claimed == self.chain.block_hash(tip.height) and not self._ahead():
                    return True
        return False

    def _ahead(self) -> dict[str, TipClaim]:
        """What servers claim beyond what we have, on no branch known to be weaker."""
        return {
            label: tip
            for label, (_, session) in self._sessions.items()
            if (tip := session.tip) is not None
            and tip.height > self.chain.tip_height
            and self._weaker.get(label) != tip.raw
        }

    # -- single ranges --------------------------------------------------------------

    async def _fetch(self, label: str, start: int, count: int) -> bytes:
        return await self._ranges.fetch(*self._sessions[label], start, count)

    async def _fetch_ranges(
        self, ranges: list[tuple[str, int, int]]
    ) -> list[tuple[str, bytes | BaseException]]:
        """The answers to (label, start, count) asked at once, in order."""
        outcomes = await asyncio.gather(
            *(self._fetch(*item) for item in ranges), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, IsoproxyError):
                raise outcome
        return [(item[0], outcome) for item, outcome in zip(ranges, outcomes, strict=True)]

    async def _bootstrap(self) -> None:
        anchor = self.chain.anchor.height
        start = self._first_height_needed
        for label in list(self._sessions):
            try:
                headers: list[Header] = []
                while (at := start + len(headers)) <= anchor:
                    count = min(anchor + 1 - at, self._ranges.chunk(label))
                    blob = await self._fetch(label, at, count)
                    headers += [mined.header async for mined in header_range.read(blob)]
                    if len(headers) != at + count - start:
                        raise Miscounted
                self._put_below(headers)
            except (RemoteProtocolError, DialError) as error:
                self._blame(label, error)
            else:
                self._delivered(label)
                return

    def _put_below(self, headers: list[Header]) -> None:
        self.chain.extend_down(headers)
        if self._store is not None:
            self._store.append_down(b"".join(header.raw for header in headers))

    async def _backward(self) -> None:
        labels = list(self._sessions)
        stop = self.chain.base_height
        ranges: list[tuple[str, int, int]] = []
        for label in labels:
            start = max(self.wanted_base, stop - self._ranges.chunk(label))
            if start < stop:
                ranges.append((label, start, stop - start))
            stop = start
        for (_, start, count), (label, blob) in zip(
            ranges, await self._fetch_ranges(ranges), strict=True
        ):
            try:
                if not isinstance(blob, bytes):
                    raise blob
                headers = [mined.header async for mined in header_range.read(blob)]
                if start + count != self.chain.base_height:
                    return
                if len(headers) != count:
                    raise Miscounted
                self._put_below(headers)
                self._delivered(label)
            except (RemoteProtocolError, DialError) as error:
                self._blame(label, error)
                return

    async def _forward(self) -> None:
        while claims := self._ahead():
            at = self.chain.tip_height + 1
            ranges: list[tuple[str, int, int]] = []
            for label in sorted(claims, key=lambda label: -claims[label].height):
                count = min(self._ranges.chunk(label), claims[label].height + 1 - at)
                if count > 0:
                    ranges.append((label, at, count))
                    at += count
            await self._take_ranges(ranges, await self._fetch_ranges(ranges), claims)

    async def _take_ranges(
        self,
        ranges: list[tuple[str, int, int]],
        outcomes: list[tuple[str, bytes | BaseException]],
        claims: dict[str, TipClaim],
    ) -> None:
        branch = self.chain.branch(self.chain.tip_height)
        for (_, _, count), (label, blob) in zip(ranges, outcomes, strict=True):
            try:
                if not isinstance(blob, bytes):
                    raise blob
                if not self._continues(branch, blob):
                    self._adopt(branch)
                    await self._settle_fork(label, claims[label])
                    return
                await self._append(branch, blob, count)
                self._delivered(label)
            except (RemoteProtocolError, DialError) as error:
                self._blame(label, error)
                break
        self._adopt(branch)

    def _continues(self, branch: Branch, blob: bytes) -> bool:
        return Header.parse(blob[:80]).previous == branch.tip_hash

    async def _append(self, branch: Branch, blob: bytes, count: int) -> None:
        """Put what `blob` holds, which must be `count` headers, on top of `branch`."""
        now, end = int(self._wall_clock()), branch.tip_height + count
        async for mined in header_range.read(blob):
            await run_cooperatively(branch.append(mined, now))
        if branch.tip_height != end:
            raise Miscounted

    def _adopt(self, branch: Branch) -> bool:
        if not branch.outweighs:
            return False
        replaced = self.chain.adopt(branch)
        if self._store is not None:
            if replaced:
                self._store.replace_above(branch.fork_height, bytes(branch.raw))
            else:
                self._store.append_up(bytes(branch.raw))
        self.on_block()
        return True

    async def _settle_fork(self, label: str, claim: TipClaim) -> None:
        """Follow a server to the block its chain has in common with ours, and up to `claim`."""
        try:
            async with asyncio.timeout(self._settings.settle_timeout):
                branch = await self._branch_of(label, claim.height)
        except (RemoteProtocolError, DialError, TimeoutError) as error:
            self._blame(label, error)
            return
        if not self._adopt(branch):
            self._weaker[label] = claim.raw

    async def _branch_of(self, label: str, target: int) -> Branch:
        """A server's blocks from where they fork off ours, up to the height `target` or until
        they have more work."""
        lowest, step = self.chain.anchor.height + 1, _FIRST_FORK_STEP
        while True:
            start = min(target, max(lowest, self.chain.tip_height + 1 - step))
            count = min(self._ranges.chunk(label), target + 1 - start)
            blob = await self._fetch(label, start, count)
            if Header.parse(blob[:80]).previous == self.chain.block_hash(start - 1):
                break
            if start <= lowest:
                raise RemoteProtocolError("a name server's chain has another trust anchor")
            step *= 4
        branch = self.chain.branch(start - 1)
        await self._append(branch, blob, count)
        while branch.tip_height < target and not branch.outweighs:
            count = min(self._ranges.chunk(label), target - branch.tip_height)
            blob = await self._fetch(label, branch.tip_height + 1, count)
            await self._append(branch, blob, count)
        return branch
