"""Runs come one after the other, and the last one that was asked for is the last."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.errors import ConfigError
from isoproxy.net.coalesced import Coalesced


class Configuration:
    """What stands in the file, and what has been applied of it, which takes a while."""

    def __init__(self) -> None:
        self.written = 0
        self.applied: list[int] = []
        self.under_way = 0

    async def apply(self) -> int:
        self.under_way += 1
        assert self.under_way == 1
        read = self.written
        await asyncio.sleep(0.01)
        self.applied.append(read)
        self.under_way -= 1
        return read


async def test_the_last_reload_asked_for_is_the_last_applied() -> None:
    config = Configuration()
    reloads = Coalesced(config.apply)
    asked = []
    for number in range(1, 201):
        config.written = number
        asked.append(asyncio.create_task(reloads.run()))
        if number % 40 == 0:
            await asyncio.sleep(0.012)
    found = await asyncio.gather(*asked)
    assert config.applied[-1] == 200
    assert config.applied == sorted(config.applied)
    assert len(config.applied) <= 11
    # none was answered by a reload that had read the file before it was asked for
    assert all(one >= number for number, one in enumerate(found, 1))


async def test_everyone_who_waits_for_a_reload_hears_that_it_failed() -> None:
    async def apply() -> int:
        await asyncio.sleep(0)
        raise ConfigError("wrong")

    reloads = Coalesced(apply)
    told = await asyncio.gather(reloads.run(), reloads.run(), return_exceptions=True)
    assert [type(error) for error in told] == [ConfigError, ConfigError]
    with pytest.raises(ConfigError):
        await reloads.run()


async def test_one_who_gives_up_does_not_end_the_reload() -> None:
    config = Configuration()
    reloads = Coalesced(config.apply)
    impatient = asyncio.create_task(reloads.run())
    other = asyncio.create_task(reloads.run())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await other == 0
    assert config.applied == [0]


async def test_closing_ends_those_under_way() -> None:
    config = Configuration()
    reloads = Coalesced(config.apply)
    asked = asyncio.create_task(reloads.run())
    await asyncio.sleep(0.001)
    await reloads.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert config.applied == []
