"""`isoproxy bitcoin redirect --print`."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.cli import main


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


def test_what_is_no_group_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bitcoin", "redirect", "--print", '"; evil', "-c", str(config)]) == 1
    assert capsys.readouterr().out == ""


def test_print_must_be_asked_for(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bitcoin", "redirect", "-c", str(config)])
    assert ended.value.code == 2
    assert "--print" in capsys.readouterr().err
