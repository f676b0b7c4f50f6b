"""Ranges from several servers: in order, without gaps, with no server waited for."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

import pytest

from isoproxy.errors import DialError
from isoproxy.namecoin.electrum.download import Download, Piece

pytestmark = pytest.mark.virtual_clock(grace_s=0)

NEVER = 1e9


class World:
    """Servers by label: the last item that each has, and how long it takes for a range."""

    def __init__(self, **servers: tuple[int, Callable[[], float]]) -> None:
        self.servers = servers
        self.chunks = dict.fromkeys(servers, 10)
        self.failing: set[str] = set()
        self.asked: list[tuple[str, int, int]] = []
        self.under_way: dict[str, int] = dict.fromkeys(servers, 0)
        self.most_under_way = 0

    async def fetch(self, label: str, start: int, count: int) -> range:
        self.asked.append((label, start, count))
        self.under_way[label] += 1
        self.most_under_way = max(self.most_under_way, self.under_way[label])
        try:
            await asyncio.sleep(self.servers[label][1]())
        finally:
            self.under_way[label] -= 1
        if label in self.failing:
            raise DialError
        return range(start, start + count)

    def failed(self, label: str, error: BaseException) -> None:
        self.servers.pop(label, None)

    def download(self, start: int, stop: int, depth: int = 1) -> Download[int, range]:
        return Download(
            start,
            stop,
            servers=lambda due: {
                label: last for label, (last, _) in self.servers.items() if last >= due
            },
            last=lambda last: last,
            chunk=lambda label: self.chunks[label],
            fetch=self.fetch,
            failed=self.failed,
            beside=lambda count: 2.0,
            depth=depth,
        )


async def pieces(download: Download[int, range]) -> list[Piece[int, range]]:
    async with contextlib.aclosing(download.pieces()) as found:
        return [piece async for piece in found]


def items(found: list[Piece[int, range]]) -> list[int]:
    return [item for piece in found for item in piece.content]


def after(seconds: float) -> Callable[[], float]:
    return lambda: seconds


async def test_ranges_come_in_order_spread_over_the_servers() -> None:
    world = World(a=(100, after(1.0)), b=(100, after(3.0)), c=(100, after(1.5)))
    found = await pieces(world.download(5, 100))
    assert items(found) == list(range(5, 101))
    assert {piece.label for piece in found} == {"a", "b", "c"}
    assert world.most_under_way == 1
    assert asyncio.get_running_loop().time() <= 6.0


async def test_a_silent_server_holds_nothing_up() -> None:
    world = World(a=(60, after(NEVER)), b=(60, after(0.1)))
    assert items(await pieces(world.download(1, 60))) == list(range(1, 61))
    assert asyncio.get_running_loop().time() < 4.0
    assert world.under_way == {"a": 0, "b": 0}


async def test_what_fails_is_asked_of_another() -> None:
    world = World(a=(60, after(1.0)), b=(60, after(1.0)))
    world.failing = {"a"}
    assert items(await pieces(world.download(1, 60))) == list(range(1, 61))
    assert set(world.servers) == {"b"}


async def test_it_ends_where_no_server_has_more() -> None:
    world = World(a=(30, after(1.0)), b=(42, after(1.0)))
    assert items(await pieces(world.download(1, 60))) == list(range(1, 43))
    world.failing = {"a", "b"}
    assert await pieces(world.download(1, 60)) == []


async def test_servers_that_appear_join() -> None:
    world = World(a=(100, after(1.0)))

    async def appear() -> None:
        await asyncio.sleep(2.5)
        world.servers["b"] = (100, after(1.0))
        world.chunks["b"], world.under_way["b"] = 10, 0

    appearing = asyncio.create_task(appear())
    found = await pieces(world.download(1, 100))
    await appearing
    assert "b" in {piece.label for piece in found}
    assert items(found) == list(range(1, 101))


async def test_ranges_of_any_size_times_and_failures_leave_no_gap() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        world = World(
            a=(500, partial(rng.expovariate, 0.5)),
            b=(500, partial(rng.choice, [0.1, NEVER])),
            c=(rng.randrange(1, 500), partial(rng.expovariate, 2.0)),
        )
        for label in world.chunks:
            world.chunks[label] = rng.randrange(1, 60)
        world.failing = {"c"} if rng.random() < 0.5 else set()
        found = await pieces(world.download(1, 500, depth=rng.randrange(1, 4)))
        assert items(found) == list(range(1, 501)), seed
        assert all(piece.count == len(piece.content) for piece in found)
        assert not any(world.under_way.values())


async def test_who_leaves_early_leaves_nothing_under_way() -> None:
    world = World(a=(100, after(1.0)), b=(100, after(5.0)))
    async with contextlib.aclosing(world.download(1, 100).pieces()) as found:
        assert (await anext(found)).end == 11
    assert world.under_way == {"a": 0, "b": 0}
