"""The dashboard as the configuration has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from isoproxy.config import ObserveConfig
from isoproxy.daemon.settings.front import endpoint_of
from isoproxy.front.listener import open_listening_socket
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.dashboard import Dashboard

MAX_FLOWS: Final = 200
"""Flows of either kind that the page is told of."""


async def open_dashboard(
    config: ObserveConfig,
    status: Callable[[], Awaitable[Mapping[str, object]]],
    metrics: Callable[[], Awaitable[str]],
) -> tuple[Dashboard, str] | None:
    """The dashboard, serving, and where: a URL, or `unix:` and a path; None without one.

    Raises OperationError where it cannot listen.
    """
    if config.dashboard is None:
        return None
    sock = open_listening_socket(endpoint_of(config.dashboard), int(config.dashboard_mode))
    dashboard = Dashboard(status, metrics)
    await dashboard.start(sock)
    if config.dashboard.is_unix:
        return dashboard, str(config.dashboard)
    return dashboard, f"http://{Endpoint.tcp(*sock.getsockname()[:2])}/"
