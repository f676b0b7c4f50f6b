"""Keeping our header chain at the tip, in the background, at the servers' pace.

Theory of operation
    A few connections of our own (`upkeep`) are subscribed to new headers.  Work begins with
    the first that answers; others join (`download`).  Each round does what is needed, in
    this order:

    1. *Bootstrap*: the trust anchor and the few headers below it that the rules need.
    2. *Forward* to the tip that servers claim, every header checked (`chain.Branch`); a far
       one by sampled proof (`sampled`), unless that is not wanted.  Until this is done once,
       nothing is `ready`.
    3. *Backward* by hash links, the newest first, as far down as a name can live: a name
       renewed yesterday can be proven long before one renewed eight months ago.
    4. The proofs that are still missing, a range now and then; before 3, and at once, where
       nothing is to be `ready` without.

    Below the anchor hash links are all that counts, so bare headers are enough there.

    A server whose headers do not continue our chain is asked for the fork point; its
    branch replaces ours if it has more work.  Wrong headers, or fewer than a server said
    it has, cost it its reputation, and the range is asked of another one.

    How one range is fetched and read, at the servers' pace and without keeping anybody
    waiting, is `header_range`'s.

Invariants
    The chain and the store change only here, by whole verified ranges, in that order.
    A server that keeps us from what others have is gone by a deadline (`turns`): what it
    claimed when a range was asked for, it must deliver.  No look-up begins a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

from isoproxy.errors import DialError, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import Header, HeaderRejected
from isoproxy.namecoin.chain.cooperative import run_cooperatively
from isoproxy.namecoin.chain.header_chain import Branch, HeaderChain, first_height_needed
from isoproxy.namecoin.chain.params import Checkpoint
from isoproxy.namecoin.chain.store import HeaderStore
from isoproxy.namecoin.electrum import header_range
from isoproxy.namecoin.electrum.download import Download
from isoproxy.namecoin.electrum.header_range import (
    CannotCut,
    HeaderRange,
    HeaderRanges,
    Miscounted,
    SyncSettings,
)
from isoproxy.namecoin.electrum.pool import ServerPool
from isoproxy.namecoin.electrum.progress import Progress
from isoproxy.namecoin.electrum.proofs import Proofs
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.sampled import SampledWay
from isoproxy.namecoin.electrum.turns import TurnOver, Turns
from isoproxy.namecoin.electrum.upkeep import TOO_MUCH, Upkeep

_FIRST_FORK_STEP: Final = 8


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
        self._settings = settings = settings or SyncSettings()
        self._wake = asyncio.Event()
        self.upkeep = Upkeep(pool, settings.connections, settings.beside, self._wake.set)
        self.scores, self._sessions = self.upkeep.scores, self.upkeep.sessions
        self._ranges = HeaderRanges(settings)
        self._proofs = Proofs(
            chain.network, self._ranges, self.upkeep, self._blame, settings.lateness
        )
        self._sampled_way = SampledWay(
            chain,
            self._ranges,
            self.upkeep,
            self._proofs,
            ahead=self._ahead,
            adopt=self._adopt,
            blame=self._blame,
            lateness=settings.lateness,
            now=lambda: int(self._wall_clock()),
        )
        self._prove_at = 0.0
        self._rng = random.SystemRandom()
        self._checkpoint = checkpoint
        self._wall_clock = wall_clock
        self._weaker: dict[str, bytes] = {}
        self._turns = Turns(settings.turn)
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
        tip = self.chain.tip_height
        return Progress(
            base=self.chain.base_height,
            tip=tip,
            target=max([tip, *(one.claimed_height for _, one in self._sessions.values())]),
            wanted_base=self.wanted_base,
            fetched=max(tip, self._sampled_way.reached),
            unproven=self.chain.unproven,
        )

    def nudge(self) -> None:
        """Begin the next round now."""
        self._wake.set()

    # -- the work -----------------------------------------------------------------

    async def run(self) -> None:
        """Synchronise until cancelled."""
        loop = asyncio.get_running_loop()
        upkeep = loop.create_task(self.upkeep.run())
        self._prove_at = loop.time() + self._settings.idle
        try:
            while True:
                self._wake.clear()
                await self._round()
                if not self._sessions or self._is_waiting():
                    await self._pause(self._settings.idle)
        finally:
            upkeep.cancel()
            await asyncio.gather(upkeep, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _is_waiting(self) -> bool:
        return self.chain.is_anchored and not self._ahead() and not self._is_backfilling()

    def _is_backfilling(self) -> bool:
        return self.chain.is_anchored and self.chain.base_height > self.wanted_base

    def _blame(self, label: str, error: BaseException) -> None:
        """Stop using a server's connection; what it did decides for how long."""
        if isinstance(error, CannotCut):
            return
        if isinstance(error, TOO_MUCH):
            self._ranges.ask_less(label)
        self.upkeep.blame(label, error)

    async def _round(self) -> None:
        if not self.chain.is_anchored:
            await self._bootstrap()
        if not self.chain.is_anchored:
            return
        await self._forward()
        while not (self._settings.sampled or self._ahead()) and await self._prove_some():
            pass
        self._note_ready()
        if self._is_backfilling():
            await self._backward()
        now = asyncio.get_running_loop().time()
        if now >= self._prove_at and not self._is_backfilling():
            self._prove_at = now + self._settings.idle
            await self._prove_some()

    async def _prove_some(self) -> bool:
        """Prove a range of what is not proven yet, any of it with the same chance.

        True if any of it was.
        """
        unproven, first = self.chain.unproven_heights(), self.chain.anchor.height + 1
        if not unproven:
            return False
        at, chunk = self._rng.choice(unproven), self._settings.chunk
        start = at - (at - first) % chunk
        heights = range(start, min(start + chunk, self.chain.tip_height + 1))
        checking = self._proofs.check(heights, lambda height: self.chain.raw(height, 1), chunk)
        async with contextlib.aclosing(checking) as proven:
            async for some in proven:
                self.chain.mark_proven(some[0], len(some))
                if self._store is not None:
                    self._store.append_proven(some[0], self.chain.raw(some[0], len(some)))
        return self.chain.is_proven(at)

    def _note_ready(self) -> None:
        """Look-ups may start once all is there, and proven if that is wanted."""
        if self._agrees_with_a_server() and (self._settings.sampled or not self.chain.unproven):
            self.ready.set()

    def _agrees_with_a_server(self) -> bool:
        """Whether one agrees, and no other has more that has not wasted a turn."""
        return all(map(self._turns.has_wasted, self._ahead())) and any(
            (tip := session.tip) is not None
            and tip.height in self.chain
            and Header.parse(tip.raw).block_hash == self.chain.block_hash(tip.height)
            for _, session in self._sessions.values()
        )

    def _ahead(self, height: int | None = None) -> dict[str, TipClaim]:
        """What servers claim at `height` or above, on no branch known to be weaker; by default
        beyond what we have."""
        lowest = self.chain.tip_height + 1 if height is None else height
        claims = {
            label: tip
            for label, (_, session) in self._sessions.items()
            if (tip := session.tip) is not None
            and tip.height >= lowest
            and self._weaker.get(label) != tip.raw
        }
        return self._turns.in_order(claims)

    async def _fetch(self, label: str, start: int, count: int) -> HeaderRange:
        return await self._ranges.fetch(*self.upkeep.session(label), start, count)

    async def _downwards(
        self, top: int, bottom: int, expected: bytes
    ) -> AsyncGenerator[tuple[str, list[Header]], None]:
        """Headers from `top`, whose hash is `expected`, down to `bottom`: lists of them, the
        highest list first, each with the label of who sent it."""
        # a download goes upwards: the items are heights, negated

        async def fetch(label: str, start: int, count: int) -> HeaderRange:
            lowest = -(start + count - 1)
            return await self._ranges.fetch_bare(*self.upkeep.session(label), lowest, count)

        download = Download[None, HeaderRange](
            -top,
            -bottom,
            servers=lambda _: dict.fromkeys(self._sessions),
            last=lambda _: -bottom,
            chunk=self._ranges.bare_chunk,
            fetch=fetch,
            failed=self._blame,
            beside=self._settings.lateness,
        )
        async with contextlib.aclosing(download.pieces()) as pieces:
            async for piece in pieces:
                try:
                    headers = [m.header async for m in header_range.read(piece.content)]
                    if len(headers) != piece.count:
                        raise Miscounted
                    for header in reversed(headers):
                        if header.block_hash != expected:
                            raise HeaderRejected(0, "a header is not the one linked to")
                        expected = header.previous
                except RemoteProtocolError as error:
                    self._blame(piece.label, error)
                    return
                self.upkeep.delivered(piece.label)
                yield piece.label, headers

    async def _bootstrap(self) -> None:
        anchor, found = self.chain.anchor, list[Header]()
        lowest = first_height_needed(self.chain.network, anchor)
        ways = self._downwards(anchor.height, lowest, anchor.block_hash)
        async with contextlib.aclosing(ways) as parts:
            async for _, headers in parts:
                found = headers + found
        if len(found) == anchor.height + 1 - lowest:
            self._put_below(found)

    def _put_below(self, headers: list[Header]) -> None:
        self.chain.extend_down(headers)
        if self._store is not None:
            self._store.append_down(b"".join(header.raw for header in headers))

    async def _backward(self) -> None:
        base = self.chain.base_height
        ways = self._downwards(base - 1, self.wanted_base, self.chain.header(base).previous)
        async with contextlib.aclosing(ways) as parts:
            async for _, headers in parts:
                self._put_below(headers)
                if self._ahead():
                    return

    async def _forward(self) -> None:
        while claims := self._ahead():
            label, claim = next(iter(claims.items()))
            if self._settings.is_sampled(claim.height - self.chain.tip_height):
                await self._take_sampled(label, claim)
            else:
                await self._take_whole(claim.height)
            self._note_ready()

    async def _take_sampled(self, label: str, claim: TipClaim) -> None:
        """The way to what a server claims, as far as it is proven in its turn."""
        before = self.chain.tip_hash
        try:
            async with asyncio.timeout(self._turns.length(label)):
                mismatch = await self._sampled_way.take(label, claim)
        except TimeoutError:
            self._blame(label, TurnOver())
        else:
            if mismatch is not None:
                return await self._settle_fork(mismatch.label, mismatch.claim)
        self._turns.ended(label, brought=self.chain.tip_hash != before)

    async def _take_whole(self, target: int) -> None:
        """Whole headers from above our tip to `target`, as far as they come."""
        download = Download[TipClaim, HeaderRange](
            self.chain.tip_height + 1,
            target,
            servers=self._ahead,
            last=lambda claim: claim.height,
            chunk=self._ranges.chunk,
            fetch=self._fetch,
            failed=self._blame,
            beside=self._settings.lateness,
        )
        async with contextlib.aclosing(download.pieces()) as pieces:
            async for piece in pieces:
                if piece.content.previous != self.chain.tip_hash:
                    await self._settle_fork(piece.label, piece.claim)
                    return
                branch = self.chain.branch(self.chain.tip_height)
                try:
                    await self._append(branch, piece.content, piece.count)
                except RemoteProtocolError as error:
                    self._blame(piece.label, error)
                    return
                self.upkeep.delivered(piece.label)
                self._adopt(branch)

    async def _append(self, branch: Branch, headers: HeaderRange, count: int) -> None:
        """Put `headers`, which must be `count`, on top of `branch`."""
        now, end = int(self._wall_clock()), branch.tip_height + count
        async for mined in header_range.read(headers):
            await run_cooperatively(branch.append(mined, now))
        if branch.tip_height != end:
            raise Miscounted

    def _adopt(self, branch: Branch) -> bool:
        if not branch.outweighs:
            return False
        self.chain.adopt(branch)
        if self._store is not None:
            self._store.replace_above(branch.fork_height, bytes(branch.raw), branch.proven)
        self.on_block()
        return True

    async def _settle_fork(self, label: str, claim: TipClaim) -> None:
        """Follow a server to the block its chain has in common with ours, and up to `claim`."""
        brought = False
        try:
            async with asyncio.timeout(self._turns.length(label)):
                branch = await self._branch_of(label, claim.height)
            brought = self._adopt(branch)
            if not brought:
                self._weaker[label] = claim.raw
        except (RemoteProtocolError, DialError, TimeoutError) as error:
            self._blame(label, error)
        self._turns.ended(label, brought=brought)

    async def _branch_of(self, label: str, target: int) -> Branch:
        """A server's blocks from where they fork off ours, up to the height `target` or until
        they have more work."""
        lowest, step = self.chain.anchor.height + 1, _FIRST_FORK_STEP
        while True:
            start = min(target, max(lowest, self.chain.tip_height + 1 - step))
            count = min(self._ranges.chunk(label), target + 1 - start)
            headers = await self._fetch(label, start, count)
            if headers.previous == self.chain.block_hash(start - 1):
                break
            if start <= lowest:
                raise RemoteProtocolError("a name server's chain has another trust anchor")
            step *= 4
        branch = self.chain.branch(start - 1)
        await self._append(branch, headers, count)
        while branch.tip_height < target and not branch.outweighs:
            count = min(self._ranges.chunk(label), target - branch.tip_height)
            headers = await self._fetch(label, branch.tip_height + 1, count)
            await self._append(branch, headers, count)
        return branch
