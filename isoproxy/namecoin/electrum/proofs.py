"""Proofs of work of blocks whose headers are known, from whichever server delivers them.

Theory of operation
    Blocks are asked for with their proofs (AuxPoW), in ranges where they stand side by side
    and one by one where they do not, several at a time, spread over the servers.  What one
    server does not deliver is asked of the others, until none is left.

    A server with another block at that height is on another branch; that is no lie, and it
    is asked no more this time.  A proof that does not hold is a lie.

Invariants
    A height is told as proven after `check_proof_of_work` of the very header that is known.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.chain.auxpow import check_proof_of_work
from isoproxy.namecoin.chain.cooperative import run_cooperatively
from isoproxy.namecoin.chain.params import ChainParams
from isoproxy.namecoin.electrum import header_range
from isoproxy.namecoin.electrum.download import Download
from isoproxy.namecoin.electrum.header_range import HeaderRanges, Miscounted
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.upkeep import Upkeep

AT_ONCE: Final = 24
"""Blocks in one request, or in requests sent together, where few are needed."""


class NotProven(DialError):
    """No server delivered the proofs that a chain of headers needs."""

    def __init__(self) -> None:
        super().__init__("no name server proves what one announced", kind=ErrorKind.GENERAL_FAILURE)


class _AnotherBranch(DialError):
    """A server has another block at a height."""

    def __init__(self) -> None:
        super().__init__("a name server is on another branch", kind=ErrorKind.GENERAL_FAILURE)


class Proofs:
    """See the module's text; `blame(label, error)` is told what servers did."""

    def __init__(
        self,
        params: ChainParams,
        ranges: HeaderRanges,
        upkeep: Upkeep,
        blame: Callable[[str, BaseException], None],
        lateness: Callable[[int], float],
    ) -> None:
        self._params = params
        self._ranges = ranges
        self._upkeep = upkeep
        self._blame = blame
        self._lateness = lateness

    async def check(
        self, heights: Sequence[int], known: Callable[[int], bytes], at_once: int = AT_ONCE
    ) -> AsyncGenerator[Sequence[int], None]:
        """Those of ascending `heights` that are proven, some at a time, in order.

        `known(height)` are the 80 bytes of a header.  Ends early where no server is left.
        """
        elsewhere: set[str] = set()

        def servers(at: int) -> dict[str, TipClaim]:
            return {
                label: tip
                for label, (_, session) in self._upkeep.sessions.items()
                if (tip := session.tip) is not None
                and tip.height >= heights[at]
                and label not in elsewhere
            }

        async def fetch(label: str, at: int, count: int) -> Sequence[int]:
            asked = heights[at : at + count]
            await self._check(label, asked, known)
            return asked

        def failed(label: str, error: BaseException) -> None:
            if isinstance(error, _AnotherBranch):
                elsewhere.add(label)
            else:
                self._blame(label, error)

        download = Download[TipClaim, Sequence[int]](
            0,
            len(heights) - 1,
            servers=servers,
            last=lambda tip: bisect_right(heights, tip.height) - 1,
            chunk=lambda label: min(at_once, self._ranges.chunk(label)),
            fetch=fetch,
            failed=failed,
            beside=self._lateness,
            depth=2,
        )
        async with contextlib.aclosing(download.pieces()) as pieces:
            async for piece in pieces:
                yield piece.content

    async def _check(
        self, label: str, heights: Sequence[int], known: Callable[[int], bytes]
    ) -> None:
        server, session = self._upkeep.session(label)
        start, count = heights[0], len(heights)
        if heights[-1] - start == count - 1:
            headers = await self._ranges.fetch(server, session, start, count)
        else:
            headers = await self._ranges.fetch_single(server, session, heights)
        at = 0
        async for mined in header_range.read(headers):
            if at == count:
                raise Miscounted
            if mined.header.raw != known(heights[at]):
                raise _AnotherBranch
            await run_cooperatively(check_proof_of_work(mined, heights[at], self._params))
            at += 1
        if at != count:
            raise Miscounted
