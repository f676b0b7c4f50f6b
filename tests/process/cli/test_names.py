"""`isoproxy resolve` and `isoproxy names anchor`, with programs of the user's own as source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isoproxy.cli import main
from isoproxy.namecoin.chain.anchor import read_anchor
from isoproxy.namecoin.chain.params import MAINNET
from tests.kit.service import Outcome, command, connect, running, system_tor
from tests.kit.socks_port import SocksPort
from tests.unit.namecoin.kit import ONION
from tests.unit.namecoin.rpc.server import RpcServer, core_methods, electrum_methods

VALUES = {
    b"d/example": json.dumps({"tor": ONION, "ip": "192.0.2.1"}).encode(),
    b"d/plain": b'{"ip":"192.0.2.2"}',
    b"d/outside": b'{"alias":"example.com."}',
}


def sets(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def names_from(server: RpcServer, backend: str, *more: str) -> list[str]:
    """Settings for names from `server`."""
    return sets(
        f"names.backend={backend}",
        f"names.rpc.address={server.endpoint}",
        "names.rpc.username=user",
        "names.rpc.password=pass",
        *more,
    )


@pytest.mark.parametrize("backend", ["electrum-nmc", "namecoin-core"])
async def test_a_running_isoproxy_resolves_and_connects(tmp_path: Path, backend: str) -> None:
    electrum = backend == "electrum-nmc"
    server = RpcServer(electrum_methods(VALUES) if electrum else core_methods(VALUES))
    async with SocksPort() as tor, server.running():
        settings = [*system_tor(tor), *names_from(server, backend)]
        async with running(tmp_path, *settings) as service:

            async def resolve(*words: str) -> Outcome:
                return await service.ask("resolve", *settings, *words)

            assert await resolve("example.bit") == (0, ONION + "\n", "")
            calls = len(server.calls)
            again = json.loads((await resolve("example.bit", "--json")).out)
            assert (again["status"], again["type"], again["cached"]) == ("ok", "onion", True)
            assert len(server.calls) == calls
            other = json.loads((await resolve("example.bit", "--json", "--isolation", "x")).out)
            assert other["cached"] is False
            zone = (await resolve("example.bit", "--records")).out
            assert "example.bit. IN A 192.0.2.1" in zone
            code, out, err = await resolve("gone.bit")
            assert (code, out) == (1, "")
            assert "not registered" in err
            code, _, err = await resolve("outside.bit")
            assert (code, "does not allow" in err) == (1, True)
            reader, writer = await connect(service.port(), host=b"plain.bit")
            assert (await reader.readexactly(10))[1] == 0
            writer.close()
            status = json.loads((await service.ask("status", "--json")).out)["names"]
            assert status["backend"] == backend
            assert f"names: {backend}" in (await service.ask("status")).out
            assert await service.stop() == 0
    assert [request.host for request in tor.requests if request.host] == [b"192.0.2.2"]
    ids = {
        params["options"]["streamID"]
        for params in server.asked()
        if electrum and "stream_id" not in params
    }
    assert len(ids) == (3 if electrum else 0)
    assert "example" not in service.text()


async def test_each_client_network_has_its_own_name_service(tmp_path: Path) -> None:
    general = RpcServer(core_methods(VALUES))
    own = RpcServer(core_methods(VALUES), login=b"own:its@own")
    async with SocksPort() as tor, general.running(), own.running():
        clients = f'names.rpc.clients={{ "127.0.0.1/32" = "own:its@own@{own.endpoint}" }}'
        settings = [*system_tor(tor), *names_from(general, "namecoin-core", clients)]
        async with running(tmp_path, *settings) as service:
            reader, writer = await connect(service.port(), host=b"plain.bit")
            assert (await reader.readexactly(10))[1] == 0
            writer.close()
            assert own.calls
            assert not general.calls


async def test_without_a_running_isoproxy_the_command_does_it_alone(tmp_path: Path) -> None:
    server = RpcServer(core_methods(VALUES))
    async with SocksPort() as tor, server.running():
        settings = [*system_tor(tor), *names_from(server, "namecoin-core")]
        code, out, err = await command(tmp_path, "resolve", *settings, "example.bit")
        assert (code, out) == (0, ONION + "\n"), err
        code, out, err = await command(
            tmp_path, "resolve", *settings, *sets("names.backend=none"), "example.bit"
        )
        assert (code, out) == (1, "")
        assert 'names.backend is "none"' in err


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("example.com", 2, "under bit"),
        ("example", 2, "under bit"),
        ("", 2, "under bit"),
        ("a b.bit", 2, "under bit"),
        ("under_score.bit", 1, "not registered"),
    ],
)
def test_nobody_is_asked_for_what_cannot_be_a_name(
    name: str,
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("an isoproxy was asked, or a tor started")

    monkeypatch.setattr("isoproxy.cli.resolve.ask", asked)
    assert main(["resolve", name]) == code
    out, err = capsys.readouterr()
    assert (out, told in err) == ("", True)
    assert main(["resolve", "--json", name]) == code
    answer = json.loads(capsys.readouterr().out)
    assert (answer["name"], answer["status"] == "ok", answer["target"]) == (name, False, None)


async def test_none_refuses_names_and_says_so(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        reader, writer = await connect(service.port(), host=b"example.bit")
        assert (await reader.readexactly(10))[1] == 2
        writer.close()
        assert "names: none" in (await service.ask("status")).out
        assert (await service.ask("resolve", "example.bit")).code == 1
    assert not [request for request in tor.requests if request.host]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["names.backend=electrum-nmc"], "names.rpc.username"),
        (["names.backend=namecoin-core", "names.rpc.address=192.0.2.1:8336"], "loopback"),
        (["names.electrum.network=regtest"], "mainnet only"),
        (["names.electrum.servers=['a.test:1:t','b.test:1:s']"], "allow_plain"),
    ],
)
@pytest.mark.parametrize("word", ["check", "run"])
async def test_settings_that_make_no_backend_are_told(
    tmp_path: Path, word: str, settings: list[str], text: str
) -> None:
    code, _, err = await command(tmp_path, word, *sets("listener.0.address=127.0.0.1:0", *settings))
    assert (code, text in err) == (2, True), err


async def test_an_anchor_comes_from_ones_own_node(tmp_path: Path) -> None:
    tip = 900_000

    def header(params: Any) -> dict[str, Any]:
        return {"hash": params[0], "chainwork": f"{1 << 100:064x}"}

    info = {"chain": "main", "blocks": tip, "initialblockdownload": False}
    server = RpcServer(
        {
            "getblockchaininfo": lambda params: info,
            "getblockhash": lambda params: f"{params[0]:064x}",
            "getblockheader": header,
        }
    )
    async with server.running():
        settings = names_from(server, "namecoin-core")
        code, out, _ = await command(tmp_path, "names", "anchor", *settings)
        assert (code, f"block {tip - 1008}" in out) == (0, True)
        anchor = read_anchor(tmp_path / "state" / "names", MAINNET)
        assert anchor is not None
        assert (anchor.height, anchor.work) == (tip - 1008, 1 << 100)
        code, out, _ = await command(tmp_path, "names", "anchor", *settings)
        assert (code, "nothing to do" in out) == (0, True)
        info["initialblockdownload"] = True
        code, _, err = await command(tmp_path, "names", "anchor", *settings)
        assert (code, "still downloading" in err) == (1, True)
