"""`prop279-namecoin` as a process: ncprop279's options, failures at the start, its end."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError, ErrorKind, NamingError
from prop279.__main__ import argument_parser, settings_of, their_options, tuning_of
from prop279.host import Limits, PluginHost
from prop279.protocol import Environment
from tests.unit.namecoin.rpc.server import RpcServer, core_methods, electrum_methods

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
VALUES = {
    b"d/example": b'{"ip":"192.0.2.7","map":{"_tor":{"txt":"%s"}}}' % ONION.encode(),
    b"d/plain": b'{"ip":"192.0.2.8"}',
}
PLUGIN = [sys.executable, "-m", "prop279"]


def settings(*arguments: str, environment: Environment | None = None) -> list[str]:
    options = argument_parser().parse_args(arguments)
    environment = environment or Environment()
    return settings_of(their_options(options, environment), environment)


def test_options_of_ncprop279() -> None:
    assert settings(
        "-namecoinrpcaddress=localhost:8336", "-namecoinrpcusername", "u", "-onlyonion"
    ) == [
        "names.backend=namecoin-core",
        "names.rpc.address=127.0.0.1:8336",
        "names.rpc.username=u",
        "names.only_onion=true",
    ]
    assert settings("--onlyonion=false") == ["names.only_onion=false"]
    assert settings() == []
    both = settings("-ncprop279.namecoinrpcpassword=p", "-namecoinrpccookiepath=/c")
    assert both == ["names.backend=namecoin-core", "names.rpc.cookie_file=/c"]


def test_the_file_of_ncprop279_the_command_line_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        "[ncprop279]\nnamecoinrpcusername = 'file'\nonlyonion = true\nnamecoinrpctimeout = 10000\n"
    )
    options = argument_parser().parse_args(
        [f"-conf={tmp_path / 'c.toml'}", "-namecoinrpcusername=line", "-cachemaxentries=5"]
    )
    environment = Environment(options={"namecoinrpcaddress": "127.0.0.1:1", "names.backend": "x"})
    theirs = their_options(options, environment)
    assert theirs == {
        "namecoinrpcusername": "line",
        "onlyonion": "true",
        "namecoinrpctimeout": "10000",
        "cachemaxentries": "5",
        "namecoinrpcaddress": "127.0.0.1:1",
    }
    assert settings_of(theirs, environment)[-1] == "names.backend=x"
    tuning = tuning_of(theirs)
    assert (tuning.timeout_s, tuning.per_key) == (10.0, 5)


@pytest.mark.parametrize("text", ["[ncprop279]\ncolour = 1\n", "= 1\n"])
def test_a_wrong_file_of_ncprop279(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.toml"):
        their_options(argparse.Namespace(conf=tmp_path / "c.toml"), Environment())


@pytest.mark.parametrize("theirs", [{"namecoinrpctimeout": "x"}, {"cachemaxentries": "0"}])
def test_numbers_that_are_none(theirs: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        tuning_of(theirs)


def host(server: RpcServer, *more: str) -> PluginHost:
    login = ["-namecoinrpcusername=user", "-namecoinrpcpassword=pass"]
    address = f"-namecoinrpcaddress={server.endpoint}"
    return PluginHost([*PLUGIN, address, *login, *more], limits=Limits(query_timeout=20))


async def test_resolves_through_namecoin_core() -> None:
    server = RpcServer(core_methods(VALUES))
    async with server.running(), host(server) as plugin:
        assert (await plugin.resolve("example.bit", b"1")).host == ONION
        assert (await plugin.resolve("plain.bit", b"1")).host == "192.0.2.8"
        calls = len(server.calls)
        assert (await plugin.resolve("plain.bit", b"1")).host == "192.0.2.8"
        assert len(server.calls) == calls
        assert (await plugin.resolve("plain.bit", b"2")).host == "192.0.2.8"
        assert len(server.calls) > calls


async def test_resolves_through_electrum_nmc_with_an_id_per_stream() -> None:
    server = RpcServer(electrum_methods(VALUES))
    async with server.running(), host(server, "--set", "names.backend=electrum-nmc") as plugin:
        for isolation in (b"first", b"second"):
            assert (await plugin.resolve("plain.bit", isolation)).host == "192.0.2.8"
    assert "first" not in str(server.calls)
    asked = [params for method, params in server.calls if "plain" in str(params)]
    assert len(asked) == 2
    assert str(asked[0]) != str(asked[1])


async def test_only_onions() -> None:
    server = RpcServer(core_methods(VALUES))
    async with server.running(), host(server, "-onlyonion") as plugin:
        assert (await plugin.resolve("example.bit", b"1")).host == ONION
        with pytest.raises(NamingError) as caught:
            await plugin.resolve("plain.bit", b"1")
        assert caught.value.kind is ErrorKind.NAME_ABSENT  # the protocol has no finer word


async def run(
    *arguments: str, variables: dict[str, str] | None = None
) -> tuple[int | None, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *PLUGIN, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **(variables or {})},
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(b""), 30)
    return process.returncode, out, errors


@pytest.mark.parametrize(
    ("arguments", "variables", "word"),
    [
        (["--set", "names.colour=1"], {}, b"colour"),
        (["-c", "/nonexistent.toml"], {}, b"nonexistent"),
        (["--hosts", "/nonexistent"], {}, b"hosts file"),
        (["--set", "names.backend=electrum-nmc"], {}, b"names.rpc.username"),
        (["--set", "names.backend=none"], {}, b"names.backend"),
        ([], {"TOR_NS_PROTO_VERSION": "2,3"}, b"version 1"),
        ([], {"TOR_NS_PLUGIN_OPTIONS": "x"}, b"k=v"),
    ],
)
async def test_a_wrong_start_is_said_in_init_and_to_a_person(
    arguments: list[str], variables: dict[str, str], word: bytes
) -> None:
    code, out, errors = await run(*arguments, variables=variables)
    assert code == 2
    assert out.startswith(b"INIT 1 2 ")
    assert out.count(b"\n") == 1
    assert word in out
    assert word in errors


async def test_ends_at_the_end_of_its_input(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("")
    code, out, errors = await run("--hosts", str(tmp_path / "hosts"))
    assert (code, out, errors) == (0, b"INIT 1 0\n", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ends_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "hosts").write_text("a.bit x.onion\n")
    process = await asyncio.create_subprocess_exec(
        *PLUGIN, "--hosts", str(tmp_path / "hosts"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"RESOLVE 1 a.bit\n")
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"INIT 1 0\n"
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"RESOLVED 1 0 x.onion\n"
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 10) == 0
