from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.namecoin.electrum.rate_limit import (
    MAX_CLIENTS,
    ClientRates,
    CostBudget,
    FairShare,
)


def test_a_client_alone_has_a_half_and_leaves_room_for_each_that_comes() -> None:
    share = FairShare(60)

    def takes_all_it_can(client: bytes) -> int:
        return sum(share.take(client) for _ in range(100))

    assert takes_all_it_can(b"one") == 30
    assert takes_all_it_can(b"two") == 15
    assert takes_all_it_can(b"three") == 8
    assert share.take(b"four")
    for _ in range(30):
        share.give_back(b"one")
    assert takes_all_it_can(b"two") > 0


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=200), st.integers(1, 20))
def test_the_places_are_never_all_taken_and_always_counted(
    steps: list[tuple[int, bool]], limit: int
) -> None:
    share, held = FairShare(limit), [0] * 5
    for client, gives_back in steps:
        name = b"%d" % client
        if gives_back and held[client]:
            share.give_back(name)
            held[client] -= 1
        elif not gives_back:
            free = limit - sum(held)
            assert share.take(name) == (held[client] < free)
            held[client] += held[client] < free
        assert share.held == sum(held) <= limit


def test_each_client_has_a_rate_of_its_own() -> None:
    rates = ClientRates(6)
    for _ in range(6):
        assert rates.wait_for(b"one", 0.0) == 0
        rates.spend(b"one", 0.0)
    assert rates.wait_for(b"one", 0.0) == pytest.approx(10)
    assert rates.wait_for(b"one", 4.0) == pytest.approx(6)
    assert rates.wait_for(b"two", 4.0) == 0


def test_only_so_many_clients_are_remembered() -> None:
    rates = ClientRates(1)
    for number in range(MAX_CLIENTS + 1):
        rates.spend(b"%d" % number, 0.0)
    assert rates.wait_for(b"0", 0.0) == 0
    assert rates.wait_for(b"1", 0.0) == pytest.approx(60)


def test_cost_is_forgiven_with_time() -> None:
    budget = CostBudget(capacity=100, rate=2)
    assert budget.wait_for(100, 0.0) == 0
    budget.spend(100)
    assert budget.wait_for(50, 0.0) == 25
    assert budget.wait_for(50, 25.0) == 0
    assert budget.wait_for(50, 10_000.0) == 0
    assert budget.wait_for(101, 10_000.0) == 0


def test_an_overdrawn_budget_waits_longer() -> None:
    budget = CostBudget(capacity=10, rate=1)
    budget.wait_for(1, 0.0)
    budget.spend(30)
    assert budget.wait_for(1, 0.0) == 21
