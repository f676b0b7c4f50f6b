"""`isoproxy dns dump`: every name of a Namecoin Core, or why there is none."""

from __future__ import annotations

import asyncio
import json

import pytest

from isoproxy.cli import main
from tests.unit.dns.table import CHAIN
from tests.unit.dns.test_dump import scanning
from tests.unit.namecoin.rpc.server import RpcServer, core_methods


async def test_names_on_standard_output_and_the_rest_on_the_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {b"d/plain": json.dumps(CHAIN["d/plain"]).encode(), b"d/broken": b"{"}
    rpc = RpcServer(core_methods(values) | {"name_scan": scanning(list(values))})
    async with rpc.running():
        settings = [
            f"names.rpc.address={rpc.endpoint}",
            "names.rpc.username=user",
            "names.rpc.password=pass",
        ]
        words = [word for setting in settings for word in ("--set", setting)]
        assert await asyncio.to_thread(main, ["dns", "dump", *words]) == 0
        printed = capsys.readouterr()
        assert "mail.plain.bit. IN A 192.0.2.25" in printed.out.splitlines()
        assert printed.err.startswith("; broken.bit. ")
        rpc.methods.pop("name_scan")
        assert await asyncio.to_thread(main, ["dns", "dump", *words]) == 1
        assert "is it a Namecoin Core?" in capsys.readouterr().err


async def test_a_chain_without_names_and_a_node_that_is_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rpc = RpcServer(core_methods({}) | {"name_scan": scanning([])})
    login = ["--set", "names.rpc.username=user", "--set", "names.rpc.password=pass"]
    async with rpc.running():
        words = ["dns", "dump", "--set", f"names.rpc.address={rpc.endpoint}", *login]
        assert await asyncio.to_thread(main, words) == 1
        assert capsys.readouterr() == ("", "")
    assert await asyncio.to_thread(main, words) == 1
    assert capsys.readouterr().err.startswith("isoproxy: ")
