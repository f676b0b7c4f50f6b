"""Electrum-NMC and Namecoin Core: probes, isolation, and what their answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.rpc.backends import ElectrumNmcBackend, NamecoinCoreBackend
from isoproxy.namecoin.rpc.client import JsonRpcClient, fixed_login
from tests.unit.namecoin.kit import key_of
from tests.unit.namecoin.rpc.server import (
    Failure,
    Method,
    RpcServer,
    consensusj_methods,
    core_methods,
    electrum_methods,
    record,
)

ISOLATOR = Isolator()
A, B = key_of(ISOLATOR, "user a"), key_of(ISOLATOR, "user b")
VALUE = b'{"ip":"192.0.2.2"}'
VALUES: dict[bytes, Any] = {b"d/example": VALUE, b"dd/\xff\x00": b"\xff\xfe"}

EXPIRED = "is purportedly expired (latest renewal height 1, latest unexpired height 2)"
SEMI = "is purportedly semi-expired (...); if this name is yours, renew it"
YOUNG = "is purportedly unconfirmed (registration height 9, latest verified height 8)"
SYNCING = (
    "The blockchain is still syncing (latest purported transaction height 9, local chain "
    "height 8, server chain height 9)"
)


def client(peer: RpcServer) -> JsonRpcClient:
    return JsonRpcClient(peer.endpoint, fixed_login("user", "pass"))


def electrum(peer: RpcServer, **options: Any) -> ElectrumNmcBackend:
    return ElectrumNmcBackend(client(peer), **options)


def core(peer: RpcServer, **options: Any) -> NamecoinCoreBackend:
    return NamecoinCoreBackend(client(peer), **options)


async def test_electrum_nmc_is_asked_under_a_stream_id_of_each_key() -> None:
    async with RpcServer(electrum_methods(VALUES)).running() as peer:
        backend = electrum(peer)
        expected = Found(VALUE, 135, "ab" * 32, 19, Evidence.RPC_CLAIM)
        for key in (A, B, A):
            assert await backend.lookup(b"d/example", key) == expected
        assert backend.isolates
        probe, *lookups = [params for _, params in peer.calls]
        assert probe["identifier"] == "d/"
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
        first, second = (params["options"]["streamID"] for _, params in peer.calls[1:])
        assert first != second


async def test_an_electrum_nmc_that_ignores_isolation_is_asked_nothing() -> None:
    async with RpcServer(electrum_methods(VALUES, isolates=False)).running() as peer:
        backend = electrum(peer)
        for _ in range(2):
            with pytest.raises(TemporaryFailure, match="ignores stream isolation"):
                await backend.lookup(b"d/example", A)
        assert backend.isolates is False
        assert {params["identifier"] for _, params in peer.calls} == {"d/"}
        peer.methods = electrum_methods(VALUES)
        assert isinstance(await backend.lookup(b"d/example", A), Found)


async def test_an_unisolated_one_is_used_where_the_user_says_so() -> None:
    async with RpcServer(electrum_methods(VALUES, isolates=False)).running() as peer:
        backend = electrum(peer, allow_unisolated=True)
        for _ in range(2):
            assert isinstance(await backend.lookup(b"d/example", A), Found)
        assert backend.isolates is False
        assert len(peer.calls) == 3


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


@pytest.mark.parametrize("make", [electrum_methods, core_methods])
async def test_names_and_values_that_are_no_text_travel_as_hex(make: Any) -> None:
    methods: dict[str, Method] = make(VALUES)
    async with RpcServer(methods).running() as peer:
        backend = electrum(peer) if make is electrum_methods else core(peer)
        outcome = await backend.lookup(b"dd/\xff\x00", A)
        assert isinstance(outcome, Found)
        assert outcome.value == b"\xff\xfe"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (-4, "Name purportedly never existed", ErrorKind.NAME_ABSENT),
        (-4, f"Name {EXPIRED}", ErrorKind.NAME_EXPIRED),
        (-4, f"Name {SEMI}", ErrorKind.NAME_EXPIRED),
        (-4, f"Name {YOUNG}", ErrorKind.NAME_UNCONFIRMED),
        (-4, "name never existed: 'd/expired'", ErrorKind.NAME_ABSENT),
        (-4, "name expired: 'd/never existed'", ErrorKind.NAME_EXPIRED),
    ],
)
async def test_errors_that_tell_of_absence(code: int, text: str, reason: ErrorKind) -> None:
    values = {b"d/example": Failure(code, text)}
    for methods, make in ((electrum_methods(values), electrum), (core_methods(values), core)):
        async with RpcServer(methods).running() as peer:
            assert await make(peer).lookup(b"d/example", A) == Absent(reason)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (1, SYNCING, ErrorKind.NAME_BACKEND_DOWN),
        (-10, "Namecoin is downloading blocks...", ErrorKind.NAME_BACKEND_DOWN),
        (-28, "Loading block index...", ErrorKind.NAME_BACKEND_DOWN),
        (1, "No clean interface is ready", ErrorKind.NAME_UNVERIFIABLE),
        (1, "name never existed: 'd/example'", ErrorKind.NAME_UNVERIFIABLE),
        (-4, "something else", ErrorKind.NAME_UNVERIFIABLE),
        (-4, "the name expired", ErrorKind.NAME_UNVERIFIABLE),
        (-1000, "Name/value is invalid for encoding ascii", ErrorKind.NAME_UNVERIFIABLE),
    ],
)
async def test_errors_that_tell_nothing_of_the_name(code: int, text: str, kind: ErrorKind) -> None:
    values = {b"d/example": Failure(code, text)}
    for methods, make in ((electrum_methods(values), electrum), (core_methods(values), core)):
        async with RpcServer(methods).running() as peer:
            with pytest.raises(TemporaryFailure) as caught:
                await make(peer).lookup(b"d/example", A)
            assert caught.value.kind is kind
            assert "example" not in str(caught.value)


@pytest.mark.parametrize(
    "result",
    [
        None,
        5,
        [],
        {},
        record(b"d/other", VALUE, "ascii"),
        record(b"d/example", VALUE, "ascii", name=None),
        record(b"d/example", VALUE, "ascii", value=None, value_error="invalid data for ascii"),
        record(b"d/example", VALUE, "ascii", value="xyz"),
        record(b"d/example", VALUE, "ascii", height="135"),
        record(b"d/example", VALUE, "ascii", height=True),
        record(b"d/example", VALUE, "ascii", expires_in=None),
        record(b"d/example", VALUE, "ascii", name="642f6578", name_encoding="hex"),
    ],
)
async def test_answers_that_are_no_answers(result: Any) -> None:
    methods = core_methods(VALUES) | {"name_show": lambda params: result}
    async with RpcServer(methods).running() as peer:
        with pytest.raises(TemporaryFailure) as caught:
            await core(peer).lookup(b"d/example", A)
        assert caught.value.kind is ErrorKind.NAME_UNVERIFIABLE


@pytest.mark.parametrize("changes", [{"expires_in": 0}, {"expires_in": -5}, {"expired": True}])
async def test_an_expired_name_presented_as_an_answer_is_absent(changes: dict[str, Any]) -> None:
    values = {b"d/example": record(b"d/example", VALUE, "ascii", **changes)}
    async with RpcServer(core_methods(values)).running() as peer:
        expected = Absent(ErrorKind.NAME_EXPIRED)
        assert await core(peer).lookup(b"d/example", A) == expected


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
        assert caught.value.kind is ErrorKind.NAME_BACKEND_DOWN
        peer.methods = core_methods(VALUES)
        assert isinstance(await backend.lookup(b"d/example", A), Found)


async def test_consensusj_is_refused_unless_allowed_and_its_nulls_are_tolerated() -> None:
    async with RpcServer(consensusj_methods({b"d/example": VALUE})).running() as peer:
        with pytest.raises(TemporaryFailure, match="no Namecoin Core"):
            await core(peer).lookup(b"d/example", A)
        assert [method for method, _ in peer.calls] == ["getblockchaininfo"]
        outcome = await core(peer, allow_unisolated=True).lookup(b"d/example", A)
        assert outcome == Found(VALUE, 135, "ab" * 32, 19, Evidence.RPC_CLAIM)


async def test_a_closed_backend_asks_nobody() -> None:
    async with RpcServer(core_methods(VALUES)).running() as peer:
        backend = core(peer)
        await backend.close()
        with pytest.raises(TemporaryFailure):
            await backend.lookup(b"d/example", A)
        assert peer.calls == []
