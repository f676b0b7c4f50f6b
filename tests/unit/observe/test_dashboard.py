"""The dashboard over real sockets: what it serves, and what clients cannot do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from pathlib import Path

import pytest

from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket
from isoproxy.observe import dashboard as module
from isoproxy.observe.dashboard import ANSWER_S, MAX_CLIENTS, REQUEST_S, Dashboard
from tests.kit.waiting import until

Status = Callable[[], Awaitable[Mapping[str, object]]]


async def metrics() -> str:
    return "isoproxy_up 1\n"


async def quiet() -> Mapping[str, object]:
    return {"uptime_s": 1}


async def hour() -> dict[str, object]:
    return {"period_s": 10}


@contextlib.asynccontextmanager
async def serving(path: Path, status: Status = quiet) -> AsyncIterator[Dashboard]:
    dashboard = Dashboard(status, hour, metrics)
    dashboard.start(ListeningSocket.open(Endpoint.unix(str(path / "d")), 0o600))
    try:
        yield dashboard
    finally:
        await dashboard.close()
    assert not (path / "d").exists()


async def fetch(path: Path, target: str = "/", method: str = "GET") -> tuple[str, str]:
    """Head and body of one answer."""
    reader, writer = await asyncio.open_unix_connection(path / "d")
    words = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    writer.write(words.encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head, body


async def test_the_page_its_parts_the_status_and_the_metrics(tmp_path: Path) -> None:
    async with serving(tmp_path):
        kinds = {}
        for target in (
            "/",
            "/style.css",
            "/script.js",
            "/charts.js",
            "/icon.svg",
            "/status.json",
            "/metrics",
        ):
            head, body = await fetch(tmp_path, target)
            assert head.startswith("HTTP/1.1 200 "), head
            assert body
            found = re.search(r"content-type: ([a-z/+]+)", head, re.IGNORECASE)
            assert found
            kinds[target] = found[1]
        assert kinds == {
            "/": "text/html",
            "/style.css": "text/css",
            "/script.js": "text/javascript",
            "/charts.js": "text/javascript",
            "/icon.svg": "image/svg+xml",
            "/status.json": "application/json",
            "/metrics": "text/plain",
        }
        assert json.loads((await fetch(tmp_path, "/status.json"))[1]) == {"uptime_s": 1}
        assert (await fetch(tmp_path, "/metrics"))[1] == "isoproxy_up 1\n"
        assert (await fetch(tmp_path, "/", "POST"))[0].startswith("HTTP/1.1 405 ")


def test_the_page_asks_nobody_else() -> None:
    """No other host, no inline script or style, no text that becomes HTML."""
    for file in (files("isoproxy.observe") / "page").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("// ", "")), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|\bwrite\(", text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), file


async def test_a_status_is_made_once_for_all_who_ask_at_once(tmp_path: Path) -> None:
    made = 0

    async def status() -> Mapping[str, object]:
        nonlocal made
        made += 1
        await asyncio.sleep(0.01)
        return {}

    async with serving(tmp_path, status):
        answers = await asyncio.gather(*(fetch(tmp_path, "/status.json") for _ in range(10)))
    assert {body for _, body in answers} == {"{}"}
    assert made <= 2  # a second if a busy machine took longer than a status is recent


async def test_what_goes_wrong_is_answered_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def status() -> Mapping[str, object]:
        raise ValueError("marked")

    async with serving(tmp_path, status):
        head, body = await fetch(tmp_path, "/status.json")
    assert head.startswith("HTTP/1.1 500 ")
    assert "marked" not in head + body
    assert [record.message for record in caplog.records] == ["internal_error"]


async def test_clients_beyond_the_limit_are_sent_away(tmp_path: Path) -> None:
    async with serving(tmp_path) as dashboard:
        held = [await asyncio.open_unix_connection(tmp_path / "d") for _ in range(MAX_CLIENTS)]
        await until(lambda: len(dashboard._connections) == MAX_CLIENTS)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "d")
        assert await reader.read() == b""
        writer.close()
        held.pop()[1].close()
        await until(lambda: len(dashboard._connections) < MAX_CLIENTS)
        assert (await fetch(tmp_path))[0].startswith("HTTP/1.1 200 ")
        for _, one in held:
            one.close()


async def test_a_client_that_says_nothing_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REQUEST_S <= 60
    assert ANSWER_S <= 60
    monkeypatch.setattr(module, "REQUEST_S", 0.05)
    async with serving(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "d")
        writer.write(b"GET / HTTP/1.1\r\nHo")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_a_status_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status() -> Mapping[str, object]:
        await asyncio.sleep(3600)
        return {}

    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    async with serving(tmp_path, status):
        assert (await fetch(tmp_path, "/status.json"))[0].startswith("HTTP/1.1 503 ")


async def test_over_loopback_the_port_must_be_ours() -> None:
    listening = ListeningSocket.open(Endpoint("127.0.0.1", 0), 0)
    port = listening.socket.getsockname()[1]
    dashboard = Dashboard(quiet, hour, metrics)
    dashboard.start(listening)
    for host, status in ((f"127.0.0.1:{port}", 200), (f"evil.example:{port}", 421)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        assert (await reader.read()).startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()
    await dashboard.close()
