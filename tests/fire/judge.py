"""The statistics by which the long runs are judged; every threshold has its meaning here.

`growth` asks whether a curve is flat: the slope is that of Theil and Sen (the median of the
slopes between all pairs of points), which a few wild points cannot bend, and the ratio
compares the median of the last third with that of the first.  `same` asks whether two sets
of times could come from one distribution, by permutation: no assumption about its form.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

_POINTS: Final = 150
"""A curve is reduced to so many medians: pairs are counted in squares."""


@dataclass(frozen=True)
class Growth:
    """How a curve grew: relative to its median, over its whole length."""

    drift: float
    """The robust slope times the length."""
    ratio: float
    """The last third's median over the first third's."""

    def flat(self, tolerance: float) -> bool:
        """Whether it grew by no more than that share of its median.  Shrinking is no leak."""
        return self.drift <= tolerance and self.ratio <= 1 + tolerance


def growth(seconds: Sequence[float], values: Sequence[float]) -> Growth:
    """How `values` grew over `seconds`; needs at least three points, and values above 0."""
    points = _medians(list(zip(seconds, values, strict=True)))
    slope = statistics.median(
        (b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0]
    )
    third = len(points) // 3
    middle = statistics.median(value for _, value in points)
    first, last = points[:third], points[-third:]
    return Growth(
        slope * (points[-1][0] - points[0][0]) / middle,
        statistics.median(v for _, v in last) / statistics.median(v for _, v in first),
    )


def _medians(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // _POINTS)
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [
        (statistics.median(p[0] for p in part), statistics.median(p[1] for p in part))
        for part in parts
    ]


def same(
    one: Sequence[float], other: Sequence[float], *, rounds: int = 2000, seed: int = 0
) -> float:
    """The p-value of "both are of one distribution".

    The statistic is the difference of the medians; the p-value is the share of random
    relabellings with a difference at least as large, the observed one included.
    """
    chance = random.Random(seed)
    both = [*one, *other]
    found = _distance(one, other)
    as_large = 1
    for _ in range(rounds):
        chance.shuffle(both)
        as_large += _distance(both[: len(one)], both[len(one) :]) >= found - 1e-12
    return as_large / (rounds + 1)


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return abs(statistics.median(one) - statistics.median(other))


def flips(differences: Sequence[float], chance: random.Random, rounds: int = 4000) -> float:
    """The p-value of "each difference could as well have the other sign".

    The statistic is the sum's absolute value; 1 where there is no difference.
    """
    found = abs(sum(differences))
    as_large = 1
    for _ in range(rounds):
        total = sum(one if chance.random() < 0.5 else -one for one in differences)
        as_large += abs(total) >= found - 1e-9
    return as_large / (rounds + 1)


def mixes(
    values: Sequence[float], marked: Sequence[bool], chance: random.Random, rounds: int = 4000
) -> float:
    """The p-value of "the marks are spread over the values by chance".

    The statistic is the difference between the means of marked and other values; 1 where
    either is empty.  Values of 0 and 1 alone have an exact test (Fisher's, two-sided).
    """
    count, total = sum(marked), sum(values)
    if not 0 < count < len(marked):
        return 1.0
    of_marked = sum(value for value, is_marked in zip(values, marked, strict=True) if is_marked)
    if set(values) <= {0.0, 1.0}:
        return _fisher(len(values), int(total), count, int(of_marked))
    expected = total * count / len(values)
    as_large = 1
    for _ in range(rounds):
        drawn = sum(chance.sample(values, count))
        as_large += abs(drawn - expected) >= abs(of_marked - expected) - 1e-9
    return as_large / (rounds + 1)


def _fisher(size: int, ones: int, drawn: int, found: int) -> float:
    """The share of draws of `drawn` from `size`, of which `ones` are 1, as rare as `found` ones."""

    def log_comb(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    def chance_of(k: int) -> float:
        return math.exp(
            log_comb(ones, k) + log_comb(size - ones, drawn - k) - log_comb(size, drawn)
        )

    of_found = chance_of(found) * (1 + 1e-7)
    most = range(max(0, drawn - (size - ones)), min(ones, drawn) + 1)
    return min(1.0, sum(p for k in most if (p := chance_of(k)) <= of_found))
