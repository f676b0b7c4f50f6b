"""One resolver without a daemon: what it needs, and what it leaves behind."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from isoproxy.config import Config, load
from isoproxy.daemon.compose.resolver import open_resolver
from isoproxy.daemon.resolve import command_key
from isoproxy.errors import OperationError
from isoproxy.namecoin.value.name import BitName
from tests.unit.namecoin.rpc.server import RpcServer, core_methods

VALUES = {b"d/example": b'{"ip":"192.0.2.1"}'}


def core(server: RpcServer, *more: str) -> Config:
    return load(
        None,
        [
            "names.backend=namecoin-core",
            f"names.rpc.address={server.endpoint}",
            "names.rpc.username=user",
            "names.rpc.password=pass",
            *more,
        ],
    ).config


async def test_a_program_on_this_machine_is_asked_without_a_tor(tmp_path: Path) -> None:
    """In managed mode, with a tor that cannot be started, and nothing written."""
    server, progress = RpcServer(core_methods(VALUES)), io.StringIO()
    state = tmp_path / "state"
    async with server.running():
        config = core(server, "tor.binary=/nonexistent/tor")
        async with open_resolver(config, state, progress) as (resolver, isolator):
            answer = await resolver.resolve(
                BitName.parse("example.bit"), command_key(isolator, None)
            )
    assert answer.target == "192.0.2.1"
    assert progress.getvalue() == ""
    assert not state.exists()


async def test_without_names_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="are refused"):
        async with open_resolver(load(None, ["names.backend=none"]).config, tmp_path, None):
            raise AssertionError


async def test_a_tor_that_does_not_answer_is_waited_for_only_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoproxy.daemon.compose.resolver.TOR_S", 0.05)
    config = load(
        None, ["tor.mode=system", f"tor.socks=unix:{tmp_path}/s", "tor.control=none"]
    ).config
    with pytest.raises(OperationError, match="Tor does not answer"):
        async with open_resolver(config, tmp_path / "one", io.StringIO()):
            raise AssertionError
    async with asyncio.timeout(5), open_resolver(config, tmp_path / "two", None):
        assert (tmp_path / "two" / "names").is_dir()
