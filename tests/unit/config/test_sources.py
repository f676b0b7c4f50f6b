"""What a configuration is read from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.config.sources import Leaf, Table, merge, plain, read_document, read_file, read_option
from isoproxy.errors import ConfigError


def test_a_fifo_is_a_sentence_and_not_a_wait(tmp_path: Path) -> None:
    """Opening one waits for a writer; a reload would find it empty."""
    fifo = tmp_path / "isoproxy.toml"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="is not a file"):
        load(fifo)


def test_a_directory_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        load(tmp_path)


def test_a_mark_of_the_encoding_is_no_part_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "isoproxy.toml"
    file.write_bytes(b"\xef\xbb\xbf[tor]\nmode = 'system'\n")
    assert load(file).config.tor.mode == "system"
    file.write_bytes(b"\xef\xbb\xbfmode = 1\n")
    with pytest.raises(ConfigError, match=r'isoproxy.toml:1: unknown key "mode"'):
        load(file)


def test_later_wins_and_keeps_where_it_was_written() -> None:
    problems: list[str] = []
    base = read_document("a", b"[tor]\nmode = 'system'\nbinary = 'x'\n", problems)
    merge(base, read_option("tor.mode=managed", problems))
    assert problems == []
    assert plain(base) == {"tor": {"mode": "managed", "binary": "x"}}
    tor = base.items["tor"]
    assert isinstance(tor, Table)
    assert tor.items["mode"] == Leaf("managed", "--set tor.mode")
    assert tor.items["binary"] == Leaf("x", "a:3")


def test_the_empty_device_is_an_empty_file() -> None:
    problems: list[str] = []
    assert plain(read_file(Path("/dev/null"), problems)) == {}
    assert problems == []
