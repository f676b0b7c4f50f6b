"""Classifiers find what is there, and nothing where there is nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.fire.classifiers import opened_after_newnym
from tests.fire.operator import HOUR, RESTART_S, WARM_UP_S, Record
from tests.kit.memory_net import Seen


def moments(chance: random.Random, mean: float, until: float) -> Iterator[float]:
    """Without memory, `mean` s apart."""
    at = 0.0
    while (at := at + chance.expovariate(1 / mean)) < until:
        yield at


def record_of(chance: random.Random, *, linked: bool) -> Record:
    """Two clients that are started anew now and then; an opening follows a new identity."""
    record = Record(2, WARM_UP_S + 400 * HOUR)
    for client in (0, 1):
        record.restarts += ((at, client) for at in moments(chance, RESTART_S, record.until))
        for at in moments(chance, HOUR / 8, record.until):
            record.connections.append(Seen("s0", at, str(client)))
    for client in (0, 1):
        for at in moments(chance, HOUR, record.until):
            if record.is_judged(at, client):
                record.new_identities.append((at, client))
    if linked:
        for at, client in record.new_identities:
            record.connections.append(Seen("s0", at + chance.uniform(30.0, 120.0), str(client)))
    return record


def test_that_clients_are_started_anew_is_no_link() -> None:
    chance = random.Random(1)
    assert opened_after_newnym(record_of(chance, linked=False), chance) > 0.05


def test_openings_that_follow_are_found() -> None:
    chance = random.Random(1)
    assert opened_after_newnym(record_of(chance, linked=True), chance) < 0.001
