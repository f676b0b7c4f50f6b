"""The dashboard as the configuration has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from isoproxy.config import ObserveConfig
from isoproxy.net.listening import ListeningSocket
from isoproxy.observe.dashboard import Dashboard

MAX_FLOWS: Final = 200
"""Flows of either kind that the page is told of."""


def open_dashboard(
    config: ObserveConfig,
    status: Callable[[], Awaitable[Mapping[str, object]]],
    metrics: Callable[[], Awaitable[str]],
) -> tuple[Dashboard, str] | None:
    """The dashboard, serving, and where: a URL, or `unix:` and a path; None without one.

    Raises OperationError where it cannot listen.
    """
    if config.dashboard is None:
        return None
    listening = ListeningSocket.open(config.dashboard, int(config.dashboard_mode))
    dashboard = Dashboard(status, metrics)
    dashboard.start(listening)
    address = listening.address()
    return dashboard, address if listening.is_unix else f"http://{address}/"
