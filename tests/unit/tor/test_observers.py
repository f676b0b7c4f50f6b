"""Observers: told in order, undisturbed by each other."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.observe.log import Formatter
from isoproxy.tor.observers import Observers


def test_all_are_told_in_order_until_they_leave() -> None:
    heard: list[tuple[str, int]] = []
    observers: Observers[int] = Observers()
    leave = observers.add(lambda value: heard.append(("first", value)))
    observers.add(lambda value: heard.append(("second", value)))
    observers.notify(1)
    leave()
    leave()
    observers.notify(2)
    assert heard == [("first", 1), ("second", 1), ("second", 2)]


def test_one_may_leave_another_while_being_told() -> None:
    heard: list[int] = []
    observers: Observers[int] = Observers()
    observers.add(lambda value: leave())
    leave = observers.add(heard.append)
    observers.notify(1)
    assert heard == []


def test_a_failing_observer_is_logged_by_type_only(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []
    observers: Observers[int] = Observers()

    def fail(value: int) -> None:
        raise ValueError("marked.name.example")

    observers.add(fail)
    observers.add(heard.append)
    observers.notify(7)
    assert heard == [7]
    (line,) = map(Formatter().format, caplog.records)
    assert "event=observer_failed" in line
    assert "ValueError" in line
    assert "marked" not in line


async def test_the_first_wanted_value_can_be_awaited() -> None:
    observers: Observers[int] = Observers()
    waiting = asyncio.create_task(observers.first(lambda value: value > 2))
    await asyncio.sleep(0)
    for value in (1, 3, 4):
        observers.notify(value)
    assert await waiting == 3
    assert observers._callbacks == {}
