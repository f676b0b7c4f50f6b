"""What a fuzz target is, and inputs for one that need no fuzzer.

Theory of operation
    A target feeds one input to one codec.  The exceptions it accepts are types, not trees:
    a subclass that nobody thought of is a finding.  Beyond that a target asserts what must
    hold for any input; most often that the pieces in which bytes arrive change nothing.

    `inputs` gives pseudo-random inputs, the same ones every time: mutations of the seeds,
    and bytes without any sense.  The default test suite feeds some of them to each target,
    so that targets do not rot; coverage-guided fuzzing is for `python -m tests.fire.fuzz`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FuzzTarget:
    """`feed` may raise what is in `accepts`, and exactly that.

    `seeds` are well-formed inputs; `feed` must take each of them without an exception.
    """

    name: str
    feed: Callable[[bytes], object]
    accepts: tuple[type[Exception], ...]
    seeds: Sequence[bytes]

    def run(self, data: bytes) -> bool:
        """Feed one input; True if it was well-formed.  Raises what must not happen."""
        try:
            self.feed(data)
        except Exception as error:
            if type(error) not in self.accepts:
                raise
            return False
        return True


def pieces(data: bytes) -> Iterator[bytes]:
    """`data` without its first byte, cut into pieces of as many bytes as that byte says."""
    size = 1 + data[0] if data else 1
    for at in range(1, len(data), size):
        yield data[at : at + size]


def inputs(seeds: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """So many inputs, the same ones every time."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds) if seeds and chance.random() < 0.9 else b"")
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            _mutate(data, seeds, chance)
        yield bytes(data)


def _mutate(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 8, 64, 300)))
        case 1:
            del data[at : at + chance.choice((1, 2, 8, 64))]
        case 2 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 3 if at < len(data):
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        case 4:
            data[at:at] = data[at : at + chance.randrange(1, 40)] * chance.choice((1, 3, 50))
        case 5 if seeds:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
