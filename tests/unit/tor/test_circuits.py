"""The budget of pending circuits is bounded, fair, and gives everything back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.tor import circuits
from isoproxy.tor.circuits import MAX_REMEMBERED, SLOT_LIFE_S, STANDING_S, CircuitBudget, Slot


class Run:
    """Requests slots and notes the order in which they are granted."""

    def __init__(self, budget: CircuitBudget) -> None:
        self.budget = budget
        self.granted: list[str] = []
        self.slots: dict[str, Slot] = {}

    def request(self, name: str, client: bytes = b"a") -> None:
        slot = self.budget.request(name, client, self._grant(name))
        assert slot is not None
        self.slots[name] = slot

    def _grant(self, name: str) -> Callable[[], None]:
        return lambda: self.granted.append(name)


@pytest.mark.virtual_clock
async def test_slots_are_bounded_and_passed_on_in_turn_between_clients() -> None:
    run = Run(CircuitBudget(asyncio.get_running_loop(), limit=3, reserve=1))
    for name in ("a1", "a2", "a3", "a4"):
        run.request(name, b"a")
    assert run.granted == ["a1", "a2"]
    for name in ("b1", "b2", "b3"):
        run.request(name, b"b")
    assert run.granted == ["a1", "a2", "b1"]
    assert (run.budget.pending, run.budget.queued) == (3, 4)
    run.slots["a1"].release()
    run.slots["a1"].release()
    run.slots["a2"].release()
    await asyncio.sleep(0)
    assert run.granted[3:] in (["a3", "b2"], ["b2", "a3"])
    for name in ("b1", "b2", "a3"):
        run.slots[name].release()
    await asyncio.sleep(0)
    assert set(run.granted[5:]) == {"a4", "b3"}
    run.slots["a4"].release()
    run.slots["b3"].release()
    assert (run.budget.pending, run.budget.queued) == (0, 0)


@pytest.mark.virtual_clock
async def test_another_number_of_slots_is_for_those_who_wait_too() -> None:
    run = Run(CircuitBudget(asyncio.get_running_loop(), limit=2, reserve=0))
    for name in ("first", "second", "third", "fourth"):
        run.request(name)
    run.budget.resize(3, reserve=0)
    await asyncio.sleep(0)
    assert run.granted == ["first", "second", "third"]
    run.budget.resize(1, reserve=0)
    run.slots["first"].release()
    await asyncio.sleep(0)
    assert (run.budget.pending, run.budget.queued) == (2, 1)
    for name in ("second", "third"):
        run.slots[name].release()
    await asyncio.sleep(0)
    assert run.granted[3:] == ["fourth"]
    run.slots["fourth"].release()


@pytest.mark.virtual_clock
async def test_a_slot_returns_after_a_while_even_if_its_stream_is_pending() -> None:
    run = Run(CircuitBudget(asyncio.get_running_loop(), limit=1, reserve=0))
    run.request("first")
    run.request("second")
    assert run.slots["second"].waiting
    await asyncio.sleep(SLOT_LIFE_S + 1.1)
    assert run.granted == ["first", "second"]
    run.slots["first"].release()
    assert run.budget.pending == 1
    run.slots["second"].release()
    assert run.budget.pending == 0


@pytest.mark.virtual_clock
async def test_leaving_the_queue_leaves_no_trace() -> None:
    run = Run(CircuitBudget(asyncio.get_running_loop(), limit=1, reserve=0))
    for name in ("first", "second", "third"):
        run.request(name)
    run.slots["second"].release()
    run.slots["first"].release()
    run.slots["second"].release()
    await asyncio.sleep(0)
    assert run.granted == ["first", "third"]
    run.slots["third"].release()
    assert (run.budget.pending, run.budget.queued) == (0, 0)


@pytest.mark.virtual_clock
async def test_a_circuit_stands_for_a_while_and_not_into_the_next_epoch() -> None:
    budget = CircuitBudget(asyncio.get_running_loop())
    budget.succeeded("c")
    assert budget.stands("c")
    assert not budget.stands("d")
    await asyncio.sleep(STANDING_S + 1)
    assert not budget.stands("c")
    budget.succeeded("c")
    budget.forget_all()
    assert not budget.stands("c")
    for number in range(MAX_REMEMBERED + 10):
        budget.succeeded(number)
    assert not budget.stands(0)
    assert budget.stands(MAX_REMEMBERED + 9)


@pytest.mark.virtual_clock
async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "MAX_QUEUED", 3)
    monkeypatch.setattr(circuits, "MAX_QUEUED_PER_CLIENT", 2)
    budget = CircuitBudget(asyncio.get_running_loop(), limit=1, reserve=0)
    outcomes = [budget.request(n, b"a", lambda: None) is not None for n in range(4)]
    assert outcomes == [True, True, True, False]
    outcomes = [budget.request(n, b"b", lambda: None) is not None for n in range(2)]
    assert outcomes == [True, False]
    for _ in range(1):
        await asyncio.sleep(SLOT_LIFE_S * 6)
    assert (budget.pending, budget.queued) == (0, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["request", "release"]), st.integers(0, 3), st.integers(0, 30)),
        max_size=80,
    )
)
def test_no_order_of_events_breaks_a_bound(steps: list[tuple[str, int, int]]) -> None:
    async def play() -> None:
        budget = CircuitBudget(asyncio.get_running_loop(), limit=4, reserve=2)
        slots: list[Slot] = []
        for step, client, index in steps:
            if step == "request":
                slot = budget.request(index, b"%d" % client, lambda: None)
                assert slot is not None
                slots.append(slot)
            elif slots:
                slots[index % len(slots)].release()
            await asyncio.sleep(0)
            assert budget.pending <= 4
            assert all(held <= 2 for held in budget._held.values())
            waiting = sum(slot.waiting for slot in slots)
            assert waiting == budget.queued
        for slot in slots:
            slot.release()
        await asyncio.sleep(0)
        assert (budget.pending, budget.queued) == (0, 0)

    asyncio.run(play())
