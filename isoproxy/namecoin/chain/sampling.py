"""Which blocks are checked in full where not all are, and what that proves.

Theory of operation
    After FlyClient (Bünz, Kiffer, Luu and Zamani, IEEE S&P 2020, sections 5 and 6),
    without its commitment, since all headers are here.

    A fork forges a *suffix* of the chain.  Call *remaining work* of a point its distance to
    the tip, in claimed work; R is that of the whole chain, D that of its newest `FULL_TAIL`
    blocks, all of which are checked.  Each draw picks a point r between D and R with a density
    proportional to 1/r, and the block that it lies in is checked.

    Take a fork with remaining work Z, deeper than the tail, of whose claimed work less than
    half was done.  The blocks without work are a set of points in (D, Z], more than Z/2 long.
    Since 1/r falls, the set that a draw hits least often is the one furthest from the tip,
    (Z/2, Z], and that one is hit with probability ln 2 / ln(R/D), whatever Z is.  (A fork with
    Z <= 2D does not exist: the tail alone is half of it.)  So it passes k draws with
    probability (1 - ln 2 / ln(R/D))^k at most, and `draws_needed` is the k for which that is
    2^-`SECURITY_BITS`.

    Draws are numbers from a keyed hash of the tip.  Nobody can know them before the tip is
    shown, and showing another tip means to have mined it: the tail is checked first.

Invariants
    Pure functions.  The same secret and tip draw the same blocks.

Specification: FlyClient, sections 5 and 6.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Final

FULL_TAIL: Final = 144
"""Blocks at the tip that are all checked; a day."""
SECURITY_BITS: Final = 40


def hit_probability(whole: int, tail: int) -> float:
    """The least probability that a draw hits a fork of which less than half was done.

    `whole` and `tail` are the work of all blocks and of the newest ones.  1 if there can be
    no such fork.
    """
    return 1.0 if whole <= 2 * tail else math.log(2.0) / math.log(whole / tail)


def draws_needed(whole: int, tail: int, bits: int = SECURITY_BITS) -> int:
    """How many draws such a fork passes with probability 2^-`bits` at most."""
    hit = hit_probability(whole, tail)
    return 0 if hit == 1.0 else math.ceil(bits * math.log(2.0) / -math.log1p(-hit))


def _numbers(secret: bytes, tip: bytes, count: int) -> list[float]:
    """`count` numbers, uniform in [0, 1)."""
    numbers = []
    for at in range(count):
        digest = blake2b(tip + at.to_bytes(4, "little"), key=secret, digest_size=8).digest()
        numbers.append((int.from_bytes(digest, "little") >> 11) * 2.0**-53)
    return numbers


def draw(
    works: Sequence[int],
    secret: bytes,
    tip: bytes,
    tail: int = FULL_TAIL,
    bits: int = SECURITY_BITS,
) -> list[int]:
    """The indices of the blocks to check beside the newest `tail`, ascending.

    `works` is the claimed work of each block, the oldest first; `secret` has 64 bytes at
    most, `tip` is the newest block's hash.
    """
    remaining = list(accumulate(reversed(works)))
    if len(works) <= tail:
        return []
    newest, whole = remaining[tail - 1], remaining[-1]
    drawn = set()
    for number in _numbers(secret, tip, draws_needed(whole, newest, bits)):
        point = newest * math.exp(number * math.log(whole / newest))
        depth = bisect_right(remaining, int(point))
        drawn.add(max(0, len(works) - 1 - depth))
    return sorted(drawn)
