"""Arti's RPC port followed: what it tells, and one that is hostile or gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.arti import rpc
from isoproxy.tor.arti.rpc import ArtiRpc, session
from tests.kit.arti_rpc import honest, serving
from tests.kit.waiting import until


async def test_it_follows_arti_and_dials_nowhere_once_it_is_gone(short_path: Path) -> None:
    async with serving(short_path, honest) as server:
        arti = ArtiRpc(server.endpoint, Backoff(0.01, 0.02))
        arti.start()
        await until(lambda: arti.bootstrap is not None)
        assert arti.bootstrap is not None
        assert arti.bootstrap.percent == 100
        assert arti.socks == Endpoint.tcp("127.0.0.1", 40123)
        server.answer = lambda _: b"{}\n"
        server.drop()
        await until(lambda: arti.bootstrap is None)
        assert arti.socks.is_none
        server.answer = honest
        await until(lambda: not arti.socks.is_none)
        await arti.close()
        assert arti.socks.is_none


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b'{"id":1}\n', b"x" * 100_000, b"[" * 60_000 + b"\n"]
)
async def test_what_no_arti_says_is_an_error(short_path: Path, line: bytes) -> None:
    async with serving(short_path, lambda _: line) as server:
        with pytest.raises(OperationError):
            async with session(server.endpoint):
                pass


async def test_a_silent_arti_is_left_in_time(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "ANSWER_S", 0.1)
    async with serving(short_path, lambda _: b"") as server:
        with pytest.raises(TimeoutError):
            async with session(server.endpoint):
                pass
