"""What phases share: tasks that are waited for, and what an internal error ends."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.unit.front.services import front_services


class Handler:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_an_internal_error_ends_what_it_belongs_to(caplog: pytest.LogCaptureFixture) -> None:
    with front_services() as services, caplog.at_level(logging.ERROR):
        handler = Handler()
        services.internal_error(handler, ValueError("ours"))
        services.internal_error(object(), ValueError("ours"))
        assert handler.aborted
        assert services.counters.defects == 2
        assert [record.msg for record in caplog.records] == ["internal_error"] * 2


async def test_a_task_is_known_until_it_has_ended() -> None:
    with front_services() as services:
        going = asyncio.Event()
        task = services.spawn(None, _wait_for(going))
        assert services.tasks == {task}
        going.set()
        await task
        await asyncio.sleep(0)
        assert services.tasks == set()


async def _wait_for(event: asyncio.Event) -> None:
    await event.wait()
