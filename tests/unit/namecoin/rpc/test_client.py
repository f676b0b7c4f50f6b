"""JSON-RPC over HTTP: logins, busy servers, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from isoproxy.errors import ConfigError, ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.rpc.client import (
    MAX_BODY,
    MAX_CONNECTIONS,
    JsonRpcClient,
    Login,
    RpcError,
    check_local,
    cookie_login,
    fixed_login,
)
from isoproxy.net.endpoint import Endpoint
from tests.unit.namecoin.rpc.server import Failure, RpcServer, chunked, core_methods, http

LOGIN = fixed_login("user", "pass")


def refuse(_: Any) -> Any:
    raise Failure(-8, "d/secret is wrong")


def server(**options: Any) -> RpcServer:
    return RpcServer({"echo": lambda params: params, "refuse": refuse}, **options)


def client(to: RpcServer, login: Login = LOGIN, **options: Any) -> JsonRpcClient:
    return JsonRpcClient(to.endpoint, login, **options)


async def test_a_call_and_its_result_over_tcp_and_a_unix_socket(tmp_path: Path) -> None:
    for path in (None, str(tmp_path / "rpc")):
        async with server().running(path) as peer:
            assert await client(peer).call("echo", {"a": [1, "\u00e9"]}) == {"a": [1, "\u00e9"]}
            assert await client(peer).call("echo", []) == []


async def test_the_stand_in_takes_every_form_that_namecoin_core_takes() -> None:
    """ncdns has sent each of them at some time; what is not named is ASCII."""
    hexadecimal = {"nameEncoding": "hex", "valueEncoding": "hex", "streamID": "a-1"}
    forms: list[tuple[list[Any], str]] = [
        (["d/x"], "{}"),
        (["d/x", {"streamID": "a-1"}], "{}"),
        (["d/x", {"valueEncoding": "hex"}], b"{}".hex()),
        ([b"d/x".hex(), hexadecimal], b"{}".hex()),
    ]
    async with RpcServer(core_methods({b"d/x": b"{}"})).running() as peer:
        for params, value in forms:
            result = await client(peer).call("name_show", params)
            assert isinstance(result, dict)
            assert (result["name"], result["value"]) == (params[0], value)
            assert (result["value_encoding"] == "hex") == (value != "{}")


async def test_an_error_keeps_its_text_out_of_its_own() -> None:
    async with server().running() as peer:
        with pytest.raises(RpcError) as caught:
            await client(peer).call("refuse", [])
        assert (caught.value.code, caught.value.message) == (-8, "d/secret is wrong")
        assert "secret" not in str(caught.value)
        with pytest.raises(RpcError) as caught:
            await client(peer).call("none", [])
        assert caught.value.code == -32601


@pytest.mark.parametrize("status", [500, 404])
async def test_json_rpc_1_reports_errors_with_an_http_status(status: int) -> None:
    body = json.dumps({"result": None, "error": {"code": -4, "message": "m"}, "id": 1}).encode()
    async with server(raw=[http(status, body)]).running() as peer:
        with pytest.raises(RpcError) as caught:
            await client(peer).call("echo", [])
        assert caught.value.code == -4


async def test_the_cookie_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    cookie.write_bytes(b"__cookie__:1\n")
    async with server(login=b"__cookie__:1").running() as peer:
        one = client(peer, cookie_login(cookie))
        assert await one.call("echo", [1]) == [1]
        peer.login = b"__cookie__:2"
        cookie.write_bytes(b"__cookie__:2")
        assert await one.call("echo", [2]) == [2]
        peer.login = b"__cookie__:3"
        with pytest.raises(TemporaryFailure, match="refuses our credentials"):
            await one.call("echo", [3])
        assert peer.calls == [("echo", [1]), ("echo", [2])]


@pytest.mark.parametrize("content", [None, b"", b"no colon", b"a:b\nc:d"])
async def test_a_cookie_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    cookie = tmp_path / ".cookie"
    if content is not None:
        cookie.write_bytes(content)
    async with server().running() as peer:
        with pytest.raises(TemporaryFailure, match="cookie file") as caught:
            await client(peer, cookie_login(cookie)).call("echo", [])
        assert str(tmp_path) not in str(caught.value)
        assert peer.calls == []


@pytest.mark.parametrize("status", [401, 403])
async def test_wrong_credentials_are_tried_once(status: int) -> None:
    async with server(raw=[http(status, b"")] * 2).running() as peer:
        with pytest.raises(TemporaryFailure, match="refuses our credentials"):
            await client(peer).call("echo", [])
        assert len(peer.raw) == 1


@pytest.mark.virtual_clock
async def test_a_busy_server_is_asked_again_and_not_for_ever() -> None:
    busy = http(503, b"Work queue depth exceeded")
    async with server(raw=[busy] * 3).running() as peer:
        assert await client(peer).call("echo", [1]) == [1]
        peer.raw = [busy] * 9
        with pytest.raises(TemporaryFailure, match="too busy"):
            await client(peer).call("echo", [1])
        assert len(peer.raw) == 5


ID_1 = json.dumps({"result": {}, "error": None, "id": 1}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        http(500, b"Invalid Request"),
        http(200, b""),
        http(200, b"[]"),
        http(200, b"{}"),
        http(200, b'"text"'),
        http(200, b"\xff\xfe"),
        http(200, b"[" * 100_000),
        http(200, json.dumps({"result": {}, "error": None, "id": 2}).encode()),
        http(200, json.dumps({"result": {}, "error": "text", "id": 1}).encode()),
        http(200, json.dumps({"result": {}, "error": {"code": "x"}, "id": 1}).encode()),
        http(500, ID_1),
        http(204, b""),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
async def test_answers_that_are_none(answer: bytes) -> None:
    async with server(raw=[answer]).running() as peer:
        with pytest.raises(TemporaryFailure):
            await client(peer).call("echo", [])


@pytest.mark.parametrize("answer", [http(200, ID_1), chunked(ID_1), http(200, ID_1, b"A: b\r\n")])
async def test_answers_in_other_framing(answer: bytes) -> None:
    async with server(raw=[answer]).running() as peer:
        assert await client(peer).call("echo", []) == {}


async def test_a_body_without_end_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_BODY + 1)
    async with server(raw=[endless]).running() as peer:
        with pytest.raises(TemporaryFailure) as caught:
            await client(peer).call("echo", [])
        assert caught.value.kind is ErrorKind.NAME_UNVERIFIABLE


async def test_a_server_that_stays_silent_costs_the_deadline_only() -> None:
    async with server(delay=30.0).running() as peer:
        before = time.monotonic()
        with pytest.raises(TemporaryFailure) as caught:
            await client(peer, timeout_s=0.1).call("echo", [])
        assert caught.value.kind is ErrorKind.NAME_TIMEOUT
        assert time.monotonic() - before < 5


async def test_nobody_there(tmp_path: Path) -> None:
    async with server().running() as peer:
        gone = peer.endpoint
    for endpoint in (gone, Endpoint.unix(str(tmp_path / "none"))):
        with pytest.raises(TemporaryFailure, match="does not answer"):
            await JsonRpcClient(endpoint, LOGIN).call("echo", [])


async def test_only_so_many_connections_at_once() -> None:
    async with server(delay=0.01).running() as peer:
        one = client(peer)
        answers = await asyncio.gather(*(one.call("echo", [n]) for n in range(40)))
        assert answers == [[n] for n in range(40)]
        assert peer.most_at_once <= MAX_CONNECTIONS


async def test_closing_cuts_what_is_under_way() -> None:
    async with server(delay=30.0).running() as peer:
        one = client(peer)
        call = asyncio.create_task(one.call("echo", []))
        await asyncio.sleep(0.05)
        one.close()
        with pytest.raises(TemporaryFailure):
            await call
        with pytest.raises(TemporaryFailure):
            await one.call("echo", [])


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8336", "[::1]:8336", "10.152.152.10:7777", "192.168.0.2:1", "unix:/run/x"]
)
def test_endpoints_of_ones_own(text: str) -> None:
    assert check_local(Endpoint.parse(text)) == Endpoint.parse(text)


@pytest.mark.parametrize(
    "text", ["8.8.8.8:8336", "[2001:db8::1]:1", "0.0.0.0:1", "[::ffff:127.0.0.1]:1", "none"]
)
def test_endpoints_elsewhere_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"names\.rpc\.address"):
        check_local(Endpoint.parse(text))
