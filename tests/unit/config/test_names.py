"""What the settings of look-ups take, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.errors import ConfigError


def loaded(tmp_path: Path, text: str) -> object:
    file = tmp_path / "isoproxy.toml"
    file.write_text(text)
    return load(file).config.names


@pytest.mark.parametrize(
    "server",
    ["host.example:50002:s", "[2001:db8::1]:50002:s", "host.example:50002:s:" + "0a" * 32],
)
def test_servers_are_host_port_and_kind(tmp_path: Path, server: str) -> None:
    loaded(tmp_path, f'[names.electrum]\nquorum = 1\nservers = ["{server}"]\n')


@pytest.mark.parametrize(
    "server", ["host.example", "host.example:1:x", "a b:1:s", "h:1:t:" + "0a" * 32]
)
def test_what_is_no_server_is_refused_with_the_form(tmp_path: Path, server: str) -> None:
    with pytest.raises(ConfigError, match="host:port:s"):
        loaded(tmp_path, f'[names.electrum]\nservers = ["{server}"]\n')


def test_bit_is_never_sent_to_an_exit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bit"):
        loaded(tmp_path, '[names.top_levels]\nbit = "tor"\n')
