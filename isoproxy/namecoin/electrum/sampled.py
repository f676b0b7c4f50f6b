"""The way to a far tip by sampled proof: bare headers of all blocks, proofs of some.

Theory of operation
    After months the way up to the tip is tens of thousands of headers, which with their
    proofs are ten times as long as without.  So:

    1. *Bare* headers from our tip to the one that a server claims, spread over those
       that can cut; links, difficulty, times and versions are checked as they come.
    2. The proofs of the newest `FULL_TAIL` blocks.  To show us a tip takes that much work.
    3. The proofs of the blocks that `chain.sampling` draws from the tip and a secret of ours.

    Then the branch is adopted.  A proof that no server delivers counts as forged: the server
    that claimed the tip loses its turn, and nothing was adopted.  What a server cannot cut is
    taken whole, and adopted as it comes.

    Servers may be on different branches.  If what one sends does not continue what others
    sent, all is taken of the claimant alone.

Invariants
    The secret leaves this process only as the choice of blocks.  The same tip draws the
    same blocks, whoever is asked, and again after a failure.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import HeaderRejected
from isoproxy.namecoin.chain.cooperative import run_cooperatively
from isoproxy.namecoin.chain.header_chain import Branch, HeaderChain
from isoproxy.namecoin.chain.sampling import FULL_TAIL, draw
from isoproxy.namecoin.electrum import header_range
from isoproxy.namecoin.electrum.download import Download
from isoproxy.namecoin.electrum.header_range import HeaderRange, HeaderRanges, Miscounted
from isoproxy.namecoin.electrum.proofs import NotProven, Proofs
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What `label`, which claims `claim`, has does not continue our chain."""

    label: str
    claim: TipClaim


class SampledWay:
    """See the module's text; `ahead(height)` has what servers claim at that height or above,
    `adopt(branch)` makes a branch part of the chain."""

    def __init__(
        self,
        chain: HeaderChain,
        ranges: HeaderRanges,
        upkeep: Upkeep,
        proofs: Proofs,
        *,
        ahead: Callable[[int], dict[str, TipClaim]],
        adopt: Callable[[Branch], bool],
        blame: Callable[[str, BaseException], None],
        lateness: Callable[[int], float],
        now: Callable[[], int],
    ) -> None:
        self._chain = chain
        self._ranges = ranges
        self._upkeep = upkeep
        self._proofs = proofs
        self._ahead = ahead
        self._adopt = adopt
        self._blame = blame
        self._lateness = lateness
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._kept: Branch | None = None

    @property
    def reached(self) -> int:
        """The height up to which there are headers, proven or not."""
        kept = self._kept
        return self._chain.tip_height if kept is None else kept.tip_height

    async def take(self, claimant: str, claim: TipClaim) -> Mismatch | None:
        """Get to the tip that a server claims, if it can be proven.

        What leads off our chain is returned, and is for others to settle.
        """
        for only in (None, claimant):
            branch = await self._bare(claim.height, only)
            if not isinstance(branch, Mismatch):
                break
            if not self._kept_headers():
                return branch
            self._kept = None
        else:
            self._blame(claimant, HeaderRejected(0, "a range does not continue the one below"))
            return None
        if branch is not None and branch.raw:
            await self._prove(branch, claimant)
        return None

    def _kept_headers(self) -> bool:
        return self._kept is not None and bool(self._kept.raw)

    async def _bare(self, target: int, only: str | None) -> Branch | Mismatch | None:
        """A branch of headers up to `target`, of the server `only` or of all that can cut.

        None if it did not come to be; empty if all was proven and adopted on the way.
        """
        branch = self._begin(target)
        download = Download[TipClaim, HeaderRange](
            branch.tip_height + 1,
            target,
            servers=lambda due: self._cutters(due, only),
            last=lambda claim: claim.height,
            chunk=self._ranges.bare_chunk,
            fetch=self._fetch,
            failed=self._blame,
            beside=lambda count: self._lateness(count // 10),
            depth=2,
        )
        async with contextlib.aclosing(download.pieces()) as pieces:
            async for piece in pieces:
                if piece.content.previous != branch.tip_hash:
                    return Mismatch(piece.label, piece.claim)
                try:
                    await self._append(branch, piece.content, piece.count)
                except RemoteProtocolError as error:
                    self._kept = None
                    self._blame(piece.label, error)
                    return None
                if 0 not in branch.proven:
                    self._upkeep.delivered(piece.label)
                    self._adopt(branch)
                    branch = self._begin(target)
        return branch if branch.tip_height == target else None

    def _begin(self, target: int) -> Branch:
        """What is left of the last time, if it can be of use, or an empty branch."""
        kept = self._kept
        if kept is None or not self._is_on_top(kept) or kept.tip_height > target:
            self._kept = kept = self._chain.branch(self._chain.tip_height)
        return kept

    def _is_on_top(self, branch: Branch) -> bool:
        chain = self._chain
        previous = bytes(branch.raw[4:36]) or branch.tip_hash
        return branch.fork_height == chain.tip_height and previous == chain.tip_hash

    def _cutters(self, due: int, only: str | None) -> dict[str, TipClaim]:
        claims = self._ahead(due)
        if only is not None:
            return {label: claim for label, claim in claims.items() if label == only}
        can = {label: claim for label, claim in claims.items() if self._ranges.can_cut(label)}
        return can or claims

    async def _fetch(self, label: str, start: int, count: int) -> HeaderRange:
        return await self._ranges.fetch_bare(*self._upkeep.session(label), start, count)

    async def _append(self, branch: Branch, headers: HeaderRange, count: int) -> None:
        now, end = self._now(), branch.tip_height + count
        async for mined in header_range.read(headers):
            if headers.is_bare:
                branch.append_checked(mined.header, now)
            else:
                await run_cooperatively(branch.append(mined, now))
        if branch.tip_height != end:
            raise Miscounted

    async def _prove(self, branch: Branch, claimant: str) -> None:
        """Adopt `branch` if what proves it is delivered: the newest first, then the draw."""
        first = branch.fork_height + 1
        tail = range(max(first, branch.tip_height + 1 - FULL_TAIL), branch.tip_height + 1)
        if await self._check(branch, tail):
            drawn = draw(branch.works(), self._secret, branch.tip_hash)
            if await self._check(branch, [first + at for at in drawn]):
                self._upkeep.delivered(claimant)
                self._kept = None
                self._adopt(branch)
                return
        self._blame(claimant, NotProven())

    async def _check(self, branch: Branch, heights: Sequence[int]) -> bool:
        """Have the blocks at `heights` proven; False if no server delivers them all."""
        missing = [at for at in heights if not branch.is_proven(at)]
        if missing:
            checking = self._proofs.check(missing, lambda height: branch.header(height).raw)
            async with contextlib.aclosing(checking) as proven:
                async for some in proven:
                    for height in some:
                        branch.mark_proven(height)
        return all(branch.is_proven(height) for height in missing)
