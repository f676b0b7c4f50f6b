"""Where the dashboard is, and who may open it there."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.dashboard import open_dashboard
from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.errors import OperationError
from isoproxy.isolation import Isolator
from isoproxy.observe.metrics import Metrics
from tests.unit.daemon.status.kit import snapshot


class Nothing:
    """A running isoproxy with nothing to show."""

    def __init__(self) -> None:
        self.history = KeptHistory(self.snapshot, Isolator(), Metrics())

    async def snapshot(self, *, circuits: bool = False) -> Snapshot:
        return snapshot()

    async def exposition(self) -> str:
        return ""


async def test_at_a_unix_socket_with_the_permissions_asked_for(short_path: Path) -> None:
    settings = [f"observe.dashboard=unix:{short_path}/d", "observe.dashboard_mode=0640"]
    opened = open_dashboard(load(None, settings).config.observe, Nothing())
    assert opened is not None
    dashboard, place = opened
    assert place == f"unix:{short_path}/d"
    assert stat.S_IMODE((short_path / "d").stat().st_mode) == 0o640
    await dashboard.close()
    assert not (short_path / "d").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_at_a_loopback_address_the_place_is_a_url_that_works(host: str) -> None:
    observe = load(None, [f"observe.dashboard={host}:0"]).config.observe
    opened = open_dashboard(observe, Nothing())
    assert opened is not None
    dashboard, place = opened
    url = urlsplit(place)
    assert place == f"http://{host}:{url.port}/"
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET / HTTP/1.0\r\nHost: {url.netloc}\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await dashboard.close()


async def test_none_by_default_and_a_place_that_cannot_be_had(tmp_path: Path) -> None:
    assert open_dashboard(load(None, []).config.observe, Nothing()) is None
    observe = load(None, [f"observe.dashboard=unix:{tmp_path}/absent/d"]).config.observe
    with pytest.raises(OperationError):
        open_dashboard(observe, Nothing())
