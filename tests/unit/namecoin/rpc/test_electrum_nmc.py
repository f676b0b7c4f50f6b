"""Electrum-NMC: the probe for isolation, and a stream ID for each key."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Evidence, Found, TemporaryFailure
from tests.unit.namecoin.kit import key_of
from tests.unit.namecoin.rpc.kit import VALUE, VALUES, A, B, electrum
from tests.unit.namecoin.rpc.server import (
    Failure,
    RpcServer,
    electrum_methods,
)


async def test_electrum_nmc_is_asked_under_a_stream_id_of_each_key() -> None:
    async with RpcServer(electrum_methods(VALUES)).running() as peer:
        backend = electrum(peer)
        expected = Found(VALUE, 135, "ab" * 32, 19, Evidence.RPC_CLAIM)
        for key in (A, B, A):
            assert await backend.lookup(b"d/example", key) == expected
        assert backend.isolates
        lookups = [params for params in peer.asked() if params["identifier"] != "d/"]
        ids = [params["options"]["streamID"] for params in lookups]
        assert ids[0] == ids[2] != ids[1]
        for stream_id in ids:
            assert len(stream_id) == 64
            assert "user" not in stream_id
            assert A.label not in stream_id
        assert all(set(params) == {"identifier", "options"} for params in lookups)


async def test_stream_ids_change_with_the_epoch() -> None:
    isolator = Isolator()
    async with RpcServer(electrum_methods(VALUES)).running() as peer:
        backend = electrum(peer)
        await backend.lookup(b"d/example", key_of(isolator, "a"))
        isolator.new_epoch()
        await backend.lookup(b"d/example", key_of(isolator, "a"))
        asked = [params for params in peer.asked() if params["identifier"] != "d/"]
        first, second = (params["options"]["streamID"] for params in asked)
        assert first != second


async def test_an_electrum_nmc_that_ignores_isolation_is_asked_nothing() -> None:
    async with RpcServer(electrum_methods(VALUES, isolates=False)).running() as peer:
        backend = electrum(peer)
        for _ in range(2):
            with pytest.raises(TemporaryFailure, match="ignores stream isolation"):
                await backend.lookup(b"d/example", A)
        assert backend.isolates is False
        assert {params["identifier"] for params in peer.asked()} == {"d/"}
        peer.methods = electrum_methods(VALUES)
        assert isinstance(await backend.lookup(b"d/example", A), Found)


DISOBEYS: list[tuple[dict[str, Any], str]] = [
    ({}, "no SOCKS5 proxy"),
    ({"proxy": None}, "no SOCKS5 proxy"),
    ({"proxy": "none"}, "no SOCKS5 proxy"),
    ({"proxy": "socks5:"}, "no SOCKS5 proxy"),
    ({"proxy": "socks4:127.0.0.1:9250"}, "no SOCKS5 proxy"),
    ({"proxy": "http:127.0.0.1:8118"}, "no SOCKS5 proxy"),
    ({"proxy": "socks5:127.0.0.1:9250:user:word:0"}, "no SOCKS5 proxy"),
    ({"proxy": "socks5:127.0.0.1:9250:::x"}, "no SOCKS5 proxy"),
    ({"proxy": True}, "no SOCKS5 proxy"),
    ({"proxy": "socks5:127.0.0.1:9250", "oneserver": True}, "because of oneserver"),
    ({"proxy": "socks5:127.0.0.1:9250", "oneserver": "false"}, "because of oneserver"),
]


@pytest.mark.parametrize(("config", "sentence"), DISOBEYS)
async def test_an_electrum_nmc_that_puts_all_ids_on_one_connection_is_asked_nothing(
    config: dict[str, Any], sentence: str
) -> None:
    async with RpcServer(electrum_methods(VALUES, config=config)).running() as peer:
        backend = electrum(peer)
        with pytest.raises(TemporaryFailure, match=sentence):
            await backend.check()
        with pytest.raises(TemporaryFailure, match=sentence):
            await backend.lookup(b"d/example", A)
        assert backend.isolates is False
        assert {params["identifier"] for params in peer.asked()} == {"d/"}
        assert isinstance(
            await electrum(peer, allow_unisolated=True).lookup(b"d/example", A), Found
        )


@pytest.mark.parametrize("tail", ["", ":::1", ":user:word", ":user:word:1"])
async def test_an_electrum_nmc_behind_a_socks5_proxy_is_asked(tail: str) -> None:
    config = {"proxy": "socks5:127.0.0.1:9250" + tail, "oneserver": False}
    async with RpcServer(electrum_methods(VALUES, config=config)).running() as peer:
        assert isinstance(await electrum(peer).lookup(b"d/example", A), Found)


async def test_settings_that_change_while_it_runs_are_seen_at_the_next_look_up() -> None:
    config: dict[str, Any] = {"proxy": "socks5:127.0.0.1:9250"}
    async with RpcServer(electrum_methods(VALUES, config=config)).running() as peer:
        backend = electrum(peer)
        assert isinstance(await backend.lookup(b"d/example", A), Found)
        config["oneserver"] = True
        with pytest.raises(TemporaryFailure, match="oneserver"):
            await backend.lookup(b"d/example", B)
        config["oneserver"] = False
        assert isinstance(await backend.lookup(b"d/example", B), Found)


async def test_one_that_does_not_tell_its_settings_is_asked_nothing() -> None:
    methods = electrum_methods(VALUES)
    del methods["getconfig"]
    async with RpcServer(methods).running() as peer:
        with pytest.raises(TemporaryFailure, match="ignores stream isolation"):
            await electrum(peer).lookup(b"d/example", A)


async def test_an_unisolated_one_is_used_where_the_user_says_so() -> None:
    async with RpcServer(electrum_methods(VALUES, isolates=False)).running() as peer:
        backend = electrum(peer, allow_unisolated=True)
        for _ in range(2):
            assert isinstance(await backend.lookup(b"d/example", A), Found)
        assert backend.isolates is False
        assert [params["identifier"] for params in peer.asked()].count("d/example") == 2


@pytest.mark.parametrize("answer", [{"name": "d/"}, Failure(-32601, "no"), Failure(1, "stream_id")])
async def test_a_probe_that_is_answered_otherwise_proves_nothing(answer: Any) -> None:
    def name_show(_: Any) -> Any:
        if isinstance(answer, Failure):
            raise answer
        return answer

    async with RpcServer({"name_show": name_show}).running() as peer:
        with pytest.raises(TemporaryFailure, match="ignores stream isolation"):
            await electrum(peer).lookup(b"d/example", A)


async def test_after_a_failure_the_program_is_probed_again() -> None:
    async with RpcServer(electrum_methods(VALUES)).running() as peer:
        backend = electrum(peer)
        await backend.lookup(b"d/example", A)
        peer.raw = [b"HTTP/1.1 200 OK\r\n"]
        with pytest.raises(TemporaryFailure):
            await backend.lookup(b"d/example", A)
        peer.methods = electrum_methods(VALUES, isolates=False)
        with pytest.raises(TemporaryFailure, match="ignores stream isolation"):
            await backend.lookup(b"d/example", A)
