"""A listener as a line of a torrc."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.config.torline import parse_tor_line
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolate


def test_tors_words_mean_what_they_mean_to_tor() -> None:
    line = "9250 isolatedestaddr NoIsolateClientAddr ExtendedErrors SessionGroup=3 WorldWritable"
    assert parse_tor_line(line) == {
        "address": "127.0.0.1:9250",
        "isolate": ["SOCKSAuth", "DestAddr"],
        "extended_errors": True,
        "session_group": 3,
        "mode": "0666",
    }


def test_saying_a_default_again_changes_nothing() -> None:
    settings = parse_tor_line("[::1]:9250 IsolateSOCKSAuth NoIsolateDestPort")
    assert settings == {"address": "[::1]:9250", "isolate": ["ClientAddr", "SOCKSAuth"]}


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("IsolateDestAdr", "IsolateDestAddr"),
        ("SessionGroup=x", "SessionGroup=1"),
        ("SessionGroup=\u0663", "SessionGroup=1"),
        ("KeepAliveIsolateSOCKSAuth", "IsolateSOCKSAuth"),
    ],
)
def test_a_word_that_is_not_known_is_an_error(word: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {nearest}"):
        parse_tor_line(f"9250 {word}")


def test_it_stands_in_a_listener(tmp_path: Path) -> None:
    path = tmp_path / "isoproxy.toml"
    path.write_text('[[listener]]\nsocks = "unix:/run/x IsolateDestPort GroupWritable"\nname="a"\n')
    (listener,) = load(path).config.listener
    assert (str(listener.address), listener.name) == ("unix:/run/x", "a")
    assert listener.isolate == Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH | Isolate.DEST_PORT


def test_saying_it_twice_is_an_error_at_the_second_place(tmp_path: Path) -> None:
    path = tmp_path / "isoproxy.toml"
    path.write_text('[[listener]]\nsocks = "9250"\naddress = "127.0.0.1:1"\n')
    with pytest.raises(ConfigError, match=r"isoproxy.toml:3: listener.address: the line socks"):
        load(path)


@pytest.mark.parametrize("line", ["''", "17", "'localhost:9250'", "'9250 Foo'"])
def test_bad_lines_name_their_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "isoproxy.toml"
    path.write_text(f"[[listener]]\n\nsocks = {line}\n")
    with pytest.raises(ConfigError, match=r"isoproxy.toml:3: listener"):
        load(path)
