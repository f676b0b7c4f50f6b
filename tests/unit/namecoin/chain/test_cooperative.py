"""Work in steps: its result, its errors, and the turns of other work in between."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.namecoin.chain.cooperative import Cooperative, finish, run_cooperatively


def total(numbers: list[int], steps: list[int]) -> Cooperative[int]:
    for number in numbers:
        steps.append(number)
        yield
    return sum(numbers)


def failing() -> Cooperative[int]:
    yield
    raise ZeroDivisionError


def test_work_is_finished_without_a_pause() -> None:
    steps: list[int] = []
    assert finish(total([1, 2, 3], steps)) == 6
    assert steps == [1, 2, 3]
    assert finish(total([], [])) == 0
    with pytest.raises(ZeroDivisionError):
        finish(failing())


async def test_after_each_step_other_work_has_its_turn() -> None:
    steps: list[int] = []
    seen: list[int] = []

    async def watch() -> None:
        while len(steps) < 3:
            seen.append(len(steps))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    assert await run_cooperatively(total([1, 2, 3], steps)) == 6
    await watching
    assert seen == sorted(seen)
    assert {1, 2} <= set(seen)
    with pytest.raises(ZeroDivisionError):
        await run_cooperatively(failing())
