"""What is kept out of the list of processes arrives all the same, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.service import command, running, system_tor
from tests.kit.socks_port import SocksPort
from tests.process.cli.test_names import VALUES, names_from
from tests.unit.dns.kit import serving, world
from tests.unit.namecoin.kit import ONION
from tests.unit.namecoin.rpc.server import RpcServer, core_methods


def private_file(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


async def test_the_stream_begins_after_the_lines_that_are_read(tmp_path: Path) -> None:
    file = private_file(tmp_path / "id", b"me\n")
    async with SocksPort() as port:
        words = ("dial", "--proxy", str(port.endpoint), "-N", "--isolation-file")
        given = b"me\nexample.com:80\nfirst\nsecond"
        assert await command(tmp_path, *words, "-", "-", given=given) == (0, "first\nsecond", "")
        given = b"example.com:80\n"
        assert await command(tmp_path, *words, file, "-", given=given) == (0, "", "")
        given = b"me\nstream"
        outcome = await command(tmp_path, *words, "-", "example.com:80", given=given)
        assert outcome == (0, "stream", "")
    assert [(one.host, one.username) for one in port.requests] == [(b"example.com", b"me")] * 3


async def test_a_name_and_an_id_are_looked_up_as_if_they_were_on_the_command_line(
    tmp_path: Path,
) -> None:
    server = RpcServer(core_methods(VALUES))
    async with SocksPort() as tor, server.running():
        settings = [*system_tor(tor), *names_from(server, "namecoin-core")]
        async with running(tmp_path, *settings) as service:
            ask = ("resolve", *settings, "--json")
            first = await service.ask(*ask, "example.bit", "--isolation", "\u00e9")
            assert json.loads(first.out)["cached"] is False
            given = "\u00e9\nexample.bit\n".encode()
            again = await service.ask(*ask, "-", "--isolation-file", "-", given=given)
            assert json.loads(again.out) == {**json.loads(first.out), "cached": True}
            other = await service.ask(*ask, "-", given=b"example.bit")
            assert (json.loads(other.out)["target"], other.err) == (ONION, "")
            assert json.loads(other.out)["cached"] is False


async def test_a_question_to_the_dns_server(tmp_path: Path) -> None:
    here = world()
    async with serving(here) as server:
        lookup = ("dns", "lookup", "--server", str(server.endpoint), "-")
        for isolation in (b"one", b"two"):
            file = private_file(tmp_path / "id", isolation)
            words = (*lookup, "--isolation-file", file)
            code, out, _ = await command(tmp_path, *words, given=b"plain.bit\n")
            assert code == 0
            assert "plain.bit. 600 IN A 192.0.2.1" in out
    assert len({key for _, key in here.backend.asked}) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("dial", "-"),
        ("dial", "--isolation-file", "-", "a.test:80"),
        ("resolve", "-"),
        ("dns", "lookup", "--server", "127.0.0.1:1", "-"),
    ],
)
@pytest.mark.parametrize("given", [None, b"", b"\n", b"x" * 5000])
async def test_input_that_is_no_line_is_a_usage_error(
    tmp_path: Path, words: tuple[str, ...], given: bytes | None
) -> None:
    code, out, err = await command(tmp_path, *words, given=given)
    assert (code, out) == (2, "")
    assert "standard input" in err


async def test_both_ways_at_once_are_refused(tmp_path: Path) -> None:
    words = ("dial", "--isolation", "a", "--isolation-file", "b", "a.test:80")
    code, _, err = await command(tmp_path, *words)
    assert (code, "not allowed with" in err) == (2, True)


async def test_a_dash_is_an_id_like_any_other(tmp_path: Path) -> None:
    async with SocksPort() as port:
        words = ("dial", "--proxy", str(port.endpoint), "-N", "a.test:80", "--isolation", "-")
        assert await command(tmp_path, *words) == (0, "", "")
        assert port.requests[0].username == b"-"
