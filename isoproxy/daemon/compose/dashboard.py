"""The dashboard as the configuration has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from isoproxy.config import ObserveConfig
from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.status.overview import overview
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.net.listening import ListeningSocket
from isoproxy.observe.dashboard import Dashboard

MAX_FLOWS: Final = 200
"""Flows of either kind that the page is told of."""


class Shown(Protocol):
    """What is shown: a running isoproxy."""

    history: KeptHistory

    async def snapshot(self, *, circuits: bool = False) -> Snapshot: ...

    async def exposition(self) -> str: ...


def open_dashboard(config: ObserveConfig, shown: Shown) -> tuple[Dashboard, str] | None:
    """The dashboard, serving, and where: a URL, or `unix:` and a path; None without one.

    Raises OperationError where it cannot listen.
    """
    if config.dashboard is None:
        return None

    async def status() -> Mapping[str, object]:
        return overview(await shown.snapshot(circuits=True), max_flows=MAX_FLOWS)

    async def history() -> Mapping[str, object]:
        return shown.history.answer()

    listening = ListeningSocket.open(config.dashboard, int(config.dashboard_mode))
    dashboard = Dashboard(status, history, shown.exposition)
    dashboard.start(listening)
    address = listening.address()
    return dashboard, address if listening.is_unix else f"http://{address}/"
