"""The terminal view, with keys, over an isoproxy that is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from textual.widgets import DataTable, Input, Sparkline, Static

from isoproxy.cli import watch as module
from isoproxy.cli.watch import Watch
from isoproxy.daemon.status.overview import tor_status
from isoproxy.errors import OperationError
from tests.unit.cli.test_watch_rows import flow, identity, status
from tests.unit.daemon.status.kit import snapshot

COUNTERS = {
    **{"bytes_up": 0, "bytes_down": 0, "identities": 2, "open": 3},
    "destinations_without_credentials": 3,
}
ANSWER = status(
    identity("aaaaaa", 1, 900),
    identity("bbbbbb", 2, 100),
    flows=[flow("aaaaaa"), flow("bbbbbb"), flow("bbbbbb")],
    version="1.0",
    epoch=0,
    tor=tor_status(snapshot().tor),
    names={"backend": "none"},
    counters=COUNTERS,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.2)


def running(what: str) -> dict[str, Any]:
    """An isoproxy that had a busy hour."""
    return {"up": [1, 2, 3], "down": [4, 5, 6]} if what == "history" else ANSWER


def column(app: Watch, table: str, number: int = 0) -> list[str]:
    shown = app.query_one(f"#{table}", DataTable)
    return [str(shown.get_row_at(row)[number]) for row in range(shown.row_count)]


async def until(pilot: Any, met: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not met():
            await pilot.pause(0.01)


async def test_identities_are_sorted_and_filtered_by_keys() -> None:
    app = Watch(running)

    def shows(*labels: str) -> Callable[[], bool]:
        return lambda: column(app, "identities") == list(labels)

    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, shows("bbbbbb", "aaaaaa"))
        await until(pilot, lambda: column(app, "streams", 1) == ["7", "7"])
        await pilot.press("r")
        await until(pilot, shows("aaaaaa", "bbbbbb"))
        await pilot.press("s", "s", "s", "r")
        await until(pilot, shows("bbbbbb", "aaaaaa"))
        await pilot.press("slash", *"bbb", "enter")
        await until(pilot, shows("bbbbbb"))
        await pilot.press("escape")
        await until(pilot, shows("bbbbbb", "aaaaaa"))
        assert app.query_one("#filter", Input).value == ""
        head = str(app.query_one("#head", Static).content)
        assert "3 destinations share one identity" in head
        assert list(app.query_one("#up", Sparkline).data or ())[:3] == [1, 2**0.5, 3**0.5]
        assert "marked" not in app.export_screenshot()
        await pilot.press("q")
    assert app.return_code == 0


async def test_the_cursor_chooses_whose_streams_are_shown() -> None:
    app = Watch(running)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: column(app, "streams", 1) == ["7", "7"])
        await pilot.press("down")
        await until(pilot, lambda: column(app, "streams", 1) == ["7"])
        await pilot.press("q")


async def test_an_isoproxy_that_does_not_answer_is_said() -> None:
    def refuses(what: str) -> dict[str, Any]:
        raise OperationError("no isoproxy listens there")

    app = Watch(refuses)
    async with app.run_test() as pilot:
        async with asyncio.timeout(20):
            while "listens" not in str(app.query_one("#head", Static).content):
                await pilot.pause(0.01)
        await pilot.press("q")
