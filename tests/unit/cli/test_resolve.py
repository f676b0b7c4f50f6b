"""`isoproxy resolve` at a running isoproxy: what is asked, what is printed, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isoproxy.admin.server import AdminServer, Answer
from isoproxy.cli import main
from isoproxy.daemon.resolve import question_of, resolve_for
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from tests.unit.namecoin.kit import CountingBackend


@asynccontextmanager
async def answering(directory: Path) -> AsyncIterator[list[Mapping[str, Any]]]:
    """An admin socket that resolves; the requests that came."""
    isolator, asked = Isolator(), list[Mapping[str, Any]]()
    resolver = Resolver(CountingBackend({"d/example": {"ip": "192.0.2.1"}}), isolator)

    async def resolve(request: Mapping[str, Any]) -> Answer:
        asked.append(request)
        return await resolve_for(resolver, isolator, question_of(request))

    server = AdminServer(directory / "admin")
    server.register("resolve", resolve)
    await server.open()
    try:
        yield asked
    finally:
        await server.close()
        await resolver.close()


async def test_an_answer_a_zone_and_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with answering(tmp_path) as asked:
        words = ["resolve", "--isolation", "one", "example.bit"]
        assert await asyncio.to_thread(main, words) == 0
        assert capsys.readouterr().out == "192.0.2.1\n"
        assert (asked[0]["name"], asked[0]["isolation"]) == ("example.bit", "one")
        assert await asyncio.to_thread(main, ["resolve", "--records", "example.bit"]) == 0
        assert "example.bit. IN A 192.0.2.1" in capsys.readouterr().out
        assert (asked[1]["isolation"], asked[1]["zone"]) == (None, True)
        assert await asyncio.to_thread(main, ["resolve", "gone.bit"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("isoproxy resolve: ")


async def test_what_is_no_name_is_asked_of_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with answering(tmp_path) as asked:
        for name in ("example.com", ""):
            assert await asyncio.to_thread(main, ["resolve", name]) == 2
            assert "expected a name under bit" in capsys.readouterr().err
        assert await asyncio.to_thread(main, ["resolve", "a..bit"]) == 1
    assert asked == []
