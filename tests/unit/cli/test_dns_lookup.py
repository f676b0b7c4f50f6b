"""`isoproxy dns lookup`: a question to a DNS server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isoproxy.cli import main
from isoproxy.net.endpoint import Endpoint
from tests.unit.dns.kit import serving, world


async def test_lookup_asks_under_an_isolation_id(capsys: pytest.CaptureFixture[str]) -> None:
    here = world(signed=True)
    async with serving(here) as server:
        base = ["dns", "lookup", "--server", str(server.endpoint)]
        assert await asyncio.to_thread(main, [*base, "plain.bit"]) == 0
        assert "plain.bit. 600 IN A 192.0.2.1" in capsys.readouterr().out
        for isolation in ("one", "two"):
            words = [*base, "--isolation", isolation, "--dnssec", "mail.plain.bit", "a"]
            assert await asyncio.to_thread(main, words) == 0
            assert "RRSIG" in capsys.readouterr().out
        assert await asyncio.to_thread(main, [*base, "nowhere.bit"]) == 1
        assert "NXDOMAIN" in capsys.readouterr().out
    assert len({key for _, key in here.backend.asked}) == 3


async def test_lookup_over_a_unix_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = Endpoint.unix(str(tmp_path / "dns"))
    async with serving(world(), endpoint=endpoint):
        words = ["dns", "lookup", "--server", str(endpoint), "plain.bit", "TXT"]
        assert await asyncio.to_thread(main, words) == 0
    assert '"one"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--server", "localhost:53", "plain.bit"], 2),
        (["--server", "127.0.0.1:1", "plain.bit"], 1),
        (["--server", "127.0.0.1:1", "a..b"], 2),
        (["--server", "127.0.0.1:1", "a.bit", "NOTYPE"], 2),
        (["--server", "127.0.0.1:1", "--isolation", "x" * 256, "a.bit"], 2),
    ],
)
def test_lookups_that_cannot_be(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dns", "lookup", *words]) == code
    assert "isoproxy: " in capsys.readouterr().err
