"""Ranges of headers from several servers at once, handed on in order.

Theory of operation
    Each server that has what is missing is asked for the next range as soon as it is free;
    servers that appear later join.  Where the range that is due does not come, it is asked
    of another server beside the first, and the first answer counts.  Ranges that fail are
    asked of others.

Invariants
    Ranges come out in order and without gaps.  No more than `_MOST_AHEAD` are kept.  The
    download ends early when no server is left that has what is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from isoproxy.errors import IsoproxyError

_MOST_AHEAD: Final = 16
_LOOK_AGAIN_S: Final = 0.5
"""For servers that appeared, and for what is late."""

C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece(Generic[C, T]):
    """`count` items from `start` on, from the server `label`, which claimed `claim` when asked."""

    label: str
    claim: C
    start: int
    count: int
    content: T

    @property
    def end(self) -> int:
        """What comes behind it."""
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class _Asked(Generic[C]):
    label: str
    claim: C
    start: int
    count: int
    at: float


class Download(Generic[C, T]):
    """Items `start`...`stop`.

    `servers(item)` has the claims of those that have `item`, in the order in which they are
    to be asked; `last(claim)` is the last that such a one has.  `chunk(label)` is how many to
    ask for, `fetch(label, start, count)` asks, and `failed(label, error)` is told of what
    it raised.  A server is asked for `depth` ranges at a time; what is due is asked of
    another one after `beside(count)` s.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        servers: Callable[[int], Mapping[str, C]],
        last: Callable[[C], int],
        chunk: Callable[[str], int],
        fetch: Callable[[str, int, int], Awaitable[T]],
        failed: Callable[[str, BaseException], None],
        beside: Callable[[int], float],
        depth: int = 1,
    ) -> None:
        self._due = start
        self._stop = stop
        self._servers = servers
        self._last = last
        self._chunk = chunk
        self._fetch = fetch
        self._failed = failed
        self._beside = beside
        self._depth = depth
        self._asked: dict[asyncio.Future[T], _Asked[C]] = {}
        self._pieces: dict[int, Piece[C, T]] = {}

    async def pieces(self) -> AsyncGenerator[Piece[C, T], None]:
        """The ranges in order; close it to give up what is under way."""
        try:
            while self._due <= self._stop:
                self._ask()
                piece = self._pieces.pop(self._due, None)
                if piece is not None:
                    self._due = piece.end
                    self._forget_passed()
                    yield piece
                elif self._asked:
                    done, _ = await asyncio.wait(
                        self._asked,
                        timeout=_LOOK_AGAIN_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for one in done:
                        self._take(one)
                else:
                    return
        finally:
            for one in self._asked:
                one.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)

    def _forget_passed(self) -> None:
        for start in [start for start in self._pieces if start < self._due]:
            del self._pieces[start]

    def _take(self, done: asyncio.Future[T]) -> None:
        asked = self._asked.pop(done)
        try:
            content = done.result()
        except IsoproxyError as error:
            self._failed(asked.label, error)
            return
        piece = Piece(asked.label, asked.claim, asked.start, asked.count, content)
        if piece.start >= self._due:
            self._pieces.setdefault(piece.start, piece)

    def _ask(self) -> None:
        """Give every server that is free something to do."""
        for label, claim in self._servers(self._due).items():
            while sum(one.label == label for one in self._asked.values()) < self._depth:
                start = self._first_missing()
                end = min(self._stop, self._last(claim)) + 1
                if start >= end or (start > self._due and len(self._pieces) >= _MOST_AHEAD):
                    start = self._late(label)
                    if start >= end:
                        break
                count = min(self._chunk(label), end - start, self._room(start))
                asked = _Asked(label, claim, start, count, asyncio.get_running_loop().time())
                self._asked[asyncio.ensure_future(self._fetch(label, start, count))] = asked

    def _covers(self) -> dict[int, int]:
        """Where the ranges that are here, or asked for, begin and end."""
        ranges = [(one.start, one.count) for one in self._asked.values()]
        ranges += [(piece.start, piece.count) for piece in self._pieces.values()]
        covers: dict[int, int] = {}
        for start, count in ranges:
            if start >= self._due:
                covers[start] = max(start + count, covers.get(start, start))
        return covers

    def _first_missing(self) -> int:
        covers, at = self._covers(), self._due
        while at in covers:
            at = covers[at]
        return at

    def _room(self, start: int) -> int:
        """How many from `start` on are not here or asked for."""
        behind = [at for at in self._covers() if at > start]
        return min(behind, default=self._stop + 1) - start

    def _late(self, label: str) -> int:
        """What is due, if it is asked of others alone and late; else beyond the end."""
        asked = [one for one in self._asked.values() if one.start == self._due]
        now = asyncio.get_running_loop().time()
        if not asked or any(
            one.label == label or now - one.at < self._beside(one.count) for one in asked
        ):
            return self._stop + 1
        return self._due
