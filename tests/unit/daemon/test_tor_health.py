"""When Tor is found to answer, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.tor_health import HEALTH_S, TorHealth


class ScriptedUpstream:
    """A Tor that answers as `up` says, asked at the times in `asked`."""

    def __init__(self) -> None:
        self.up = False
        self.advice: str | None = None
        self.asked: list[float] = []
        self.tell: Callable[[], None] = lambda: None

    def on_change(self, callback: Callable[[], None]) -> None:
        self.tell = callback

    async def answers(self) -> bool:
        self.asked.append(asyncio.get_running_loop().time())
        return self.up

    def describe(self) -> str:
        return "scripted"


@contextlib.asynccontextmanager
async def watching(upstream: ScriptedUpstream, told: list[bool]) -> AsyncIterator[TorHealth]:
    health = TorHealth(cast(Upstream, upstream), lambda: told.append(health.answers))
    task = asyncio.create_task(health.watch())
    try:
        yield health
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.virtual_clock
async def test_a_change_is_told_once() -> None:
    upstream = ScriptedUpstream()
    told: list[bool] = []
    async with watching(upstream, told) as health:
        await asyncio.sleep(HEALTH_S)
        assert (told, health.answers) == ([False], False)
        upstream.up = True
        await asyncio.sleep(HEALTH_S * 3)
        assert (told, health.answers) == ([False, True], True)


@pytest.mark.virtual_clock
async def test_a_tor_that_is_away_is_looked_for_more_often() -> None:
    upstream = ScriptedUpstream()
    async with watching(upstream, []):
        await asyncio.sleep(HEALTH_S)
        away = len(upstream.asked)
        upstream.up = True
        await asyncio.sleep(HEALTH_S / 10 + HEALTH_S * 4)
        there = len(upstream.asked) - away
    assert away > there


@pytest.mark.virtual_clock
async def test_its_end_is_noticed_at_once() -> None:
    upstream = ScriptedUpstream()
    told: list[bool] = []
    upstream.up = True
    async with watching(upstream, told):
        await asyncio.sleep(1)
        upstream.up = False
        upstream.tell()
        await asyncio.sleep(0.1)
        assert told == [True, False]


@pytest.mark.virtual_clock
async def test_what_to_do_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    upstream = ScriptedUpstream()
    async with watching(upstream, []):
        for advice in (None, "try a bridge", "try a bridge", None, "try a bridge"):
            upstream.advice = advice
            await asyncio.sleep(HEALTH_S)
    said = [r for r in caplog.records if r.getMessage() == "tor_does_not_come_up"]
    assert [vars(record)["fields"]["advice"] for record in said] == ["try a bridge"] * 2
