"""Namecoin Core: a full node, one that is not ready, and an imitation."""

from __future__ import annotations

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import Evidence, Found, TemporaryFailure
from tests.unit.namecoin.rpc.kit import VALUE, VALUES, A, core
from tests.unit.namecoin.rpc.server import (
    RpcServer,
    consensusj_methods,
    core_methods,
    http,
)


async def test_namecoin_core_is_a_full_node() -> None:
    async with RpcServer(core_methods(VALUES)).running() as peer:
        backend = core(peer)
        expected = Found(VALUE, 135, "ab" * 32, 19, Evidence.FULL_NODE)
        for _ in range(2):
            assert await backend.lookup(b"d/example", A) == expected
        assert [method for method, _ in peer.calls] == ["getblockchaininfo", *["name_show"] * 2]


async def test_namecoin_core_that_is_still_downloading_is_down() -> None:
    async with RpcServer(core_methods(VALUES, downloading=True)).running() as peer:
        backend = core(peer)
        with pytest.raises(TemporaryFailure) as caught:
            await backend.lookup(b"d/example", A)
        assert caught.value.kind is ErrorKind.NAME_SYNCHRONISING
        assert backend.problem == str(caught.value)
        peer.methods = core_methods(VALUES)
        assert isinstance(await backend.lookup(b"d/example", A), Found)
        assert backend.problem is None


async def test_calls_that_are_not_whitelisted_are_told_from_wrong_credentials(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with RpcServer({}, raw=[http(403, b"")] * 3).running() as peer:
        backend = core(peer)
        for _ in range(3):
            with pytest.raises(TemporaryFailure, match="-rpcwhitelist") as caught:
                await backend.lookup(b"d/example", A)
            assert caught.value.kind is ErrorKind.NAME_BACKEND_REFUSED
    told = [one for one in caplog.records if one.getMessage() == "name_backend_fails"]
    assert len(told) == 1


async def test_consensusj_is_refused_unless_allowed_and_its_nulls_are_tolerated() -> None:
    async with RpcServer(consensusj_methods({b"d/example": VALUE})).running() as peer:
        with pytest.raises(TemporaryFailure, match="no Namecoin Core"):
            await core(peer).lookup(b"d/example", A)
        assert [method for method, _ in peer.calls] == ["getblockchaininfo"]
        outcome = await core(peer, allow_unisolated=True).lookup(b"d/example", A)
        assert outcome == Found(VALUE, 135, "ab" * 32, 19, Evidence.RPC_CLAIM)
