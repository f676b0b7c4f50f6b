"""`isoproxy bitcoin proxy` and `isoproxy bitcoin redirect --print`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoproxy.cli import main
from isoproxy.cli.bitcoin import proxy_settings
from isoproxy.config import load
from isoproxy.isolation import Isolate


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "isoproxy.toml"
    path.write_text('[bitcoin]\nports = [8333]\n[[bitcoin.proxy]]\naddress = "[::1]:1399"\n')
    return path


@pytest.mark.parametrize(
    ("group", "shown"), [([], '"bitcoin-v2"'), (["wallet"], '"wallet"'), (["990"], "skgid 990")]
)
def test_rules_for_a_group(
    config: Path, capsys: pytest.CaptureFixture[str], group: list[str], shown: str
) -> None:
    assert main(["bitcoin", "redirect", "--print", *group, "-c", str(config)]) == 0
    rules = capsys.readouterr().out
    assert shown in rules
    assert "tcp dport { 8333 } redirect to :1399" in rules


def test_without_a_proxy_it_says_what_to_add(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.toml").touch()
    assert main(["bitcoin", "redirect", "--print", "-c", str(tmp_path / "empty.toml")]) == 2
    assert "[[bitcoin.proxy]]" in capsys.readouterr().err


def test_without_any_configuration_the_rules_are_for_the_proxy_that_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    assert main(["bitcoin", "redirect", "--print", "wallet"]) == 0
    assert "redirect to :1324" in capsys.readouterr().out


@pytest.mark.parametrize("ipv6", [True, False])
def test_the_proxy_without_a_configuration_is_safe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ipv6: bool
) -> None:
    if ipv6:
        (tmp_path / "if_inet6").touch()
    monkeypatch.setattr("isoproxy.cli.bitcoin._IPV6", tmp_path / "if_inet6")
    config = load(Path(os.devnull), proxy_settings()).config
    places = [str(proxy.address) for proxy in config.bitcoin.proxy]
    assert places == ["127.0.0.1:1324", "[::1]:1324"][: 1 + ipv6]
    assert (config.listener, config.names.backend) == ((), "none")
    assert (config.bitcoin.v2, config.bitcoin.v1_fallback) == ("on", "onion-only")
    for proxy in config.bitcoin.proxy:
        assert Isolate.DEST_ADDR | Isolate.DEST_PORT in proxy.isolate
        assert not proxy.allow_private_addresses


def test_what_is_no_group_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bitcoin", "redirect", "--print", '"; evil', "-c", str(config)]) == 1
    assert capsys.readouterr().out == ""


def test_print_must_be_asked_for(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bitcoin", "redirect", "-c", str(config)])
    assert ended.value.code == 2
    assert "--print" in capsys.readouterr().err
