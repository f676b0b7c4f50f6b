from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isoproxy.namecoin.electrum.rate_limit import CostBudget, OpenRate


def test_circuits_come_in_a_burst_and_then_at_their_rate() -> None:
    rate = OpenRate(per_minute=60, burst=3, now=0.0)
    assert [rate.take(0.0) for _ in range(4)] == [0, 0, 0, 1.0]
    assert rate.take(0.5) == 0.5
    assert rate.take(1.0) == 0
    assert rate.take(1.0) == 1.0


@given(st.lists(st.floats(0, 5), max_size=80))
def test_never_more_circuits_than_allowed(steps: list[float]) -> None:
    rate, now, opened = OpenRate(per_minute=30, burst=4, now=0.0), 0.0, 0
    for step in steps:
        now += step
        opened += rate.take(now) == 0
    assert opened <= 4 + now * 0.5 + 1e-6


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
