"""How long one server is followed where others do not lead, and which one comes first.

Theory of operation
    What servers claim is looked into one after the other: a tip that several of them show,
    then the highest.  A claim costs its server nothing, and it can take its time over what
    should prove it.  So to follow a server is its *turn*, and a turn has an end.  One that
    brought nothing is *wasted*: the server comes after those that have wasted fewer, and
    nothing is held up for it any more.  Its next turn is twice as long, since an honest server
    may be slow; what it has shown already need not come again.

    So a bad server delays what others have by one turn, once.

Invariants
    No order and no end depends on a look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.electrum.results import TipClaim

_MOST_DOUBLINGS: Final = 3


class TurnOver(DialError):
    """A server that claims what others do not have took too long to show it."""

    def __init__(self) -> None:
        super().__init__("a name server is slow to prove its tip", kind=ErrorKind.TTL_EXPIRED)


class Turns:
    """See the module's text; a first turn takes `first` s at most."""

    def __init__(self, first: float) -> None:
        self._first = first
        self._wasted: Counter[str] = Counter()

    def ended(self, label: str, *, brought: bool) -> None:
        """A turn of the server's is over; `brought` tells whether our chain got further."""
        if brought:
            del self._wasted[label]
        else:
            self._wasted[label] += 1

    def has_wasted(self, label: str) -> bool:
        """Whether the server's last turn brought nothing."""
        return self._wasted[label] > 0

    def in_order(self, claims: Mapping[str, TipClaim]) -> dict[str, TipClaim]:
        """The same claims, by server, in the order in which they are to be looked into."""
        shown = Counter(claim.raw for claim in claims.values())

        def rank(item: tuple[str, TipClaim]) -> tuple[int, int, int]:
            label, claim = item
            return self._wasted[label], -shown[claim.raw], -claim.height

        return dict(sorted(claims.items(), key=rank))

    def length(self, label: str) -> float:
        """How many s the server's next turn may take."""
        return self._first * 2.0 ** min(self._wasted[label], _MOST_DOUBLINGS)
