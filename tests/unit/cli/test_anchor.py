"""`isoproxy names anchor`: a newer block to begin with, or a sentence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from isoproxy.cli import main
from isoproxy.namecoin.chain.anchor import read_anchor
from isoproxy.namecoin.chain.params import MAINNET
from tests.unit.namecoin.rpc.server import RpcServer

TIP = 900_000


def settings(server: RpcServer) -> list[str]:
    return [
        word
        for setting in (
            f"names.rpc.address={server.endpoint}",
            "names.rpc.username=user",
            "names.rpc.password=pass",
        )
        for word in ("--set", setting)
    ]


def core(info: dict[str, Any]) -> RpcServer:
    return RpcServer(
        {
            "getblockchaininfo": lambda params: info,
            "getblockhash": lambda params: f"{params[0]:064x}",
            "getblockheader": lambda params: {"hash": params[0], "chainwork": f"{1 << 100:064x}"},
        }
    )


async def test_it_is_written_once_and_only_if_it_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    info = {"chain": "main", "blocks": TIP, "initialblockdownload": False}
    async with core(info).running() as server:
        words = ["names", "anchor", *settings(server)]
        assert await asyncio.to_thread(main, words) == 0
        assert f"the anchor is now block {TIP - 1008}, " in capsys.readouterr().out
        anchor = read_anchor(tmp_path / "state" / "names", MAINNET)
        assert anchor is not None
        assert anchor.height == TIP - 1008
        info["blocks"] = TIP - 10
        assert await asyncio.to_thread(main, words) == 0
        assert "nothing to do" in capsys.readouterr().out
        assert read_anchor(tmp_path / "state" / "names", MAINNET) == anchor


async def test_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    async with RpcServer({}).running() as server:
        assert await asyncio.to_thread(main, ["names", "anchor", *settings(server)]) == 1
        assert "is it a Namecoin Core?" in capsys.readouterr().err
    info = {"chain": "test", "blocks": TIP, "initialblockdownload": False}
    async with core(info).running() as server:
        assert await asyncio.to_thread(main, ["names", "anchor", *settings(server)]) == 1
        assert capsys.readouterr().err.startswith("isoproxy: ")
    assert await asyncio.to_thread(main, ["names", "anchor", *settings(server)]) == 1
    assert capsys.readouterr().err.startswith("isoproxy: ")
    assert not (tmp_path / "state" / "names").exists()
