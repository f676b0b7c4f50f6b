"""`isoproxy dns`: keys and questions."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from isoproxy.cli import main
from isoproxy.config import load
from isoproxy.daemon.compose.dns import dns_server
from isoproxy.dns.sign import ZoneKey
from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint
from tests.unit.dns.kit import serving, world


def test_keygen_makes_a_key_once_and_prints_its_anchor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dns.key"
    assert main(["dns", "keygen", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed == ZoneKey.load(path).anchor() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["dns", "keygen", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["dns", "anchor", str(path)]) == 0
    assert capsys.readouterr().out == printed
    assert main(["dns", "anchor", str(tmp_path / "none")]) == 2


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


def test_the_server_that_the_configuration_has(tmp_path: Path) -> None:
    here = world()
    assert dns_server(load(None, []).config, lambda _: here.resolver, here.isolator) is None
    key = tmp_path / "dns.key"
    settings = ["dns.address=127.0.0.1:0", f"dns.key_file={key}"]
    config = load(None, settings).config
    with pytest.raises(ConfigError, match="keygen"):
        dns_server(config, lambda _: here.resolver, here.isolator)
    ZoneKey.generate().store(key)
    assert dns_server(config, lambda _: here.resolver, here.isolator) is not None
