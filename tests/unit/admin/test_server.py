"""The admin socket, served and asked for real; hostile clients included."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isoproxy.admin.client import ask
from isoproxy.admin.server import MAX_REQUEST, AdminServer, Answer
from isoproxy.errors import OperationError
from isoproxy.net import unix_socket


async def echo(request: Mapping[str, Any]) -> Answer:
    return {"echo": request.get("value")}


async def refuse(request: Mapping[str, Any]) -> Answer:
    raise OperationError("not today; try tomorrow")


async def break_down(request: Mapping[str, Any]) -> Answer:
    raise ValueError("marked-secret")


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[AdminServer]:
    server = AdminServer(directory / "run" / "admin")
    for name, handler in (("echo", echo), ("refuse", refuse), ("break", break_down)):
        server.register(name, handler)
    await server.open()
    try:
        yield server
    finally:
        await server.close()


async def test_a_question_and_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        answer = await asyncio.to_thread(ask, server.path, "echo", value=["x", 1])
        assert answer == {"echo": ["x", 1]}
    assert not server.path.exists()


@pytest.mark.parametrize(
    ("request_name", "text"),
    [
        ("refuse", "not today; try tomorrow"),
        ("break", "has a defect"),
        ("unknown", "unknown request"),
    ],
)
async def test_failures_are_told(tmp_path: Path, request_name: str, text: str) -> None:
    async with serving(tmp_path) as server:
        with pytest.raises(OperationError, match=text) as caught:
            await asyncio.to_thread(ask, server.path, request_name)
    assert "marked" not in str(caught.value)


async def raw(server: AdminServer, data: bytes, *, eof: bool = False) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    writer.write(data)
    if eof:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.readline(), 10)
    except ConnectionResetError:  # closed before it read what we sent
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data", [b"\n", b"[]\n", b"{}\n", b'{"request": 1}\n', b"\xff\n", b"[" * 50_000 + b"\n"]
)
async def test_malformed_requests_are_answered(tmp_path: Path, data: bytes) -> None:
    async with serving(tmp_path) as server:
        assert json.loads(await raw(server, data))["ok"] is False


async def test_a_request_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await raw(server, b"x" * (MAX_REQUEST + 10))
        assert json.loads(answer)["error"] == "the request is too long"
        assert await raw(server, b"half a request", eof=True) == b""


async def test_requests_one_byte_at_a_time_and_several_in_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        for byte in b'{"request":"echo","value":1}\n':
            writer.write(bytes([byte]))
            await writer.drain()
        assert json.loads(await reader.readline())["echo"] == 1
        writer.write(b'{"request":"echo","value":2}\n{"request":"echo","value":3}\n')
        assert [json.loads(await reader.readline())["echo"] for _ in range(2)] == [2, 3]
        writer.close()


async def test_idle_clients_are_few(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        idle = [await asyncio.open_unix_connection(str(server.path)) for _ in range(32)]
        await asyncio.sleep(0.05)
        assert await raw(server, b'{"request":"echo"}\n') == b""
        for _, writer in idle:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await asyncio.to_thread(ask, server.path, "echo"))["echo"] is None


async def test_other_users_are_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        assert json.loads(await raw(server, b'{"request":"echo"}\n'))["ok"] is True
        # the kernel names us as the asking user; for the server we are now somebody else
        me = os.geteuid()
        monkeypatch.setattr(unix_socket, "_ROOT", me + 1)
        monkeypatch.setattr(os, "geteuid", lambda: me + 2)
        assert await raw(server, b'{"request":"echo"}\n') == b""


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run" / "admin"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(tmp_path) as server:
        with pytest.raises(OperationError, match="another program listens there; stop it"):
            await AdminServer(server.path).open()
        assert (await asyncio.to_thread(ask, server.path, "echo"))["echo"] is None


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "web.key"
    path.write_text("the key of an onion service")
    server = AdminServer(path)
    with pytest.raises(OperationError, match="no socket"):
        await server.open()
    await server.close()
    assert path.read_text() == "the key of an onion service"
