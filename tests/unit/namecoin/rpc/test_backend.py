"""What errors and answers of either program mean."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import Absent, Found, TemporaryFailure
from tests.unit.namecoin.rpc.kit import VALUE, VALUES, A, core, electrum
from tests.unit.namecoin.rpc.server import (
    Failure,
    Method,
    RpcServer,
    core_methods,
    electrum_methods,
    record,
)

EXPIRED = "is purportedly expired (latest renewal height 1, latest unexpired height 2)"
SEMI = "is purportedly semi-expired (...); if this name is yours, renew it"
YOUNG = "is purportedly unconfirmed (registration height 9, latest verified height 8)"
SYNCING = (
    "The blockchain is still syncing (latest purported transaction height 9, local chain "
    "height 8, server chain height 9)"
)


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
        (1, SYNCING, ErrorKind.NAME_SYNCHRONISING),
        (-10, "Namecoin is downloading blocks...", ErrorKind.NAME_SYNCHRONISING),
        (-28, "Loading block index...", ErrorKind.NAME_SYNCHRONISING),
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


async def test_a_closed_backend_asks_nobody() -> None:
    async with RpcServer(core_methods(VALUES)).running() as peer:
        backend = core(peer)
        await backend.close()
        with pytest.raises(TemporaryFailure):
            await backend.lookup(b"d/example", A)
        assert peer.calls == []
