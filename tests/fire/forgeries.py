"""Forged chains against the draw of blocks: `python -m tests.fire.forgeries`.

A chain of nine months, forks of several depths, in each of which just over half of the claimed
work was not done, in the oldest blocks (where a draw hits least often) or anywhere.  `--tries` of
them at the parameters of the product: none may pass.  Then the same with fewer draws, where some
do: the share must be what the bound says, within five standard deviations.

What servers and the light client do with such chains is in `test_sampled`; this is for numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from isoproxy.namecoin.chain.sampling import FULL_TAIL, SECURITY_BITS, draw, draws_needed

BLOCKS: Final = 38_600
DEPTHS: Final = (300, 1_000, 10_000, BLOCKS)
WEAK_BITS: Final = (2, 4, 6)
WINDOW: Final = 2016


@dataclass(frozen=True)
class Share:
    """How many of so many forgeries passed, and the most that the bound allows."""

    bits: int
    depth: int
    tries: int
    passed: int
    bound: float

    @property
    def is_right(self) -> bool:
        most = self.tries * self.bound
        return self.passed <= most + 5 * math.sqrt(most)


def difficulties(rng: random.Random) -> list[int]:
    """The work of each block: it changes every two weeks, as on the main network."""
    work, works = 1 << 70, list[int]()
    while len(works) < BLOCKS:
        works += [work] * WINDOW
        work = int(work * rng.uniform(0.8, 1.25))
    return works[:BLOCKS]


def forge(works: Sequence[int], depth: int, rng: random.Random | None) -> set[int]:
    """Blocks of a fork that hold just over half of its work: the oldest, or any (`rng`)."""
    wanted = sum(works[-depth:])
    candidates = list(range(len(works) - depth, len(works) - FULL_TAIL))
    if rng is not None:
        rng.shuffle(candidates)
    forged, missing = set(), 0
    for at in candidates:
        if 2 * missing > wanted:
            break
        forged.add(at)
        missing += works[at]
    return forged


def shares(tries: int, rng: random.Random) -> Iterator[Share]:
    works = difficulties(rng)
    secret = rng.randbytes(32)
    for bits in (SECURITY_BITS, *WEAK_BITS):
        for depth in DEPTHS:
            passed, count = 0, tries // len(DEPTHS)
            oldest = forge(works, depth, None)
            for number in range(count):
                forged = oldest if number % 2 else forge(works, depth, rng)
                passed += forged.isdisjoint(draw(works, secret, rng.randbytes(32), bits=bits))
            yield Share(bits, depth, count, passed, 2.0**-bits)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.forgeries")
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    draws = draws_needed(BLOCKS, FULL_TAIL)
    print(json.dumps({"seed": options.seed, "blocks": BLOCKS, "draws_at_even_work": draws}))
    all_right = True
    for share in shares(options.tries, random.Random(options.seed)):
        all_right = all_right and share.is_right
        print(json.dumps(asdict(share) | {"share": share.passed / share.tries}), flush=True)
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
