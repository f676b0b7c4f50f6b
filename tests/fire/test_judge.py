"""The statistics of the long runs find what they should, and not more."""

from __future__ import annotations

import random

import pytest

from tests.fire.judge import flips, growth, mixes, same

SECONDS = [float(n) for n in range(1500)]


def test_noise_and_a_wild_point_are_flat() -> None:
    chance = random.Random(1)
    values = [1000 + chance.gauss(0, 20) for _ in SECONDS]
    values[700] = 50_000
    assert growth(SECONDS, values).flat(0.05)


def test_a_leak_is_found_below_the_noise() -> None:
    chance = random.Random(1)
    values = [1000 + chance.gauss(0, 40) + second / 15 for second in SECONDS]
    found = growth(SECONDS, values)
    assert not found.flat(0.05)
    assert 0.05 < found.drift < 0.15


def test_a_step_is_found_by_the_ratio() -> None:
    assert not growth(SECONDS, [1000 if n < 750 else 1100 for n in SECONDS]).flat(0.05)


def test_shrinking_is_no_leak() -> None:
    assert growth(SECONDS, [2000 - n for n in SECONDS]).flat(0.0)


def test_the_permutation_test_tells_distributions_apart() -> None:
    chance = random.Random(1)
    one, other = ([chance.expovariate(1.0) for _ in range(40)] for _ in range(2))
    assert same(one, other) > 0.001
    assert same(one, [value / 4 for value in other]) < 0.001
    assert same([1.0] * 30, [1.0] * 30) == 1.0


def test_flipped_signs_are_chance_only_where_they_could_be() -> None:
    chance = random.Random(1)
    assert flips([1.0, -1.0] * 20, chance) > 0.5
    assert flips([1.0] * 20, chance) < 0.001
    assert flips([], chance) == 1.0


def test_marks_on_high_values_are_no_chance() -> None:
    chance = random.Random(1)
    marks = [n % 2 == 0 for n in range(60)]
    assert mixes([float(mark) for mark in marks], marks, chance) < 1e-9
    assert mixes([float(n % 3 == 0) for n in range(60)], marks, chance) == pytest.approx(1.0)
    noise = [chance.gauss(0, 1) for _ in marks]
    assert mixes(noise, marks, chance) > 0.01
    assert (
        mixes([value + 2 * mark for value, mark in zip(noise, marks, strict=True)], marks, chance)
        < 0.001
    )
    assert mixes([1.0, 0.0], [True, True], chance) == 1.0
