"""What Arti is told, and what a user's own lines may not change."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.tor.arti.configuration import arti_toml, checked, connect_point


def test_the_file_means_what_isolation_rests_on() -> None:
    line = "tor_network.fallback_caches = []"
    told = tomllib.loads(arti_toml(Path("/state/arti"), [line, "# a comment", ""]))
    assert told["proxy"] == {"socks_listen": "127.0.0.1:auto", "dns_listen": 0}
    assert told["rpc"] == {
        "enable": True,
        "listen": {"isoproxy": {"file": "/state/arti/connect.toml"}},
    }
    assert told["storage"] == {
        "cache_dir": "/state/arti/cache",
        "state_dir": "/state/arti/state",
        "port_info_file": "/state/arti/ports.json",
    }
    assert told["tor_network"] == {"fallback_caches": []}
    assert set(told) == {"proxy", "rpc", "storage", "logging", "tor_network"}


def test_nothing_dangerous_is_written_for_a_user() -> None:
    text = arti_toml(Path("/state/arti"))
    assert not any(word in text for word in ("dangerously", "as_root", "local_addrs", "sensitive"))


def test_the_rpc_socket_is_where_only_we_enter() -> None:
    told = tomllib.loads(connect_point("/state/arti/rpc"))
    assert told == {"connect": {"socket": "unix:/state/arti/rpc", "auth": "none"}}


@pytest.mark.parametrize(
    "line",
    [
        "proxy.socks_listen = 9150",
        '"proxy".socks_listen = 9150',
        "rpc.enable = false",
        "[proxy]",
        "[rpc]\nenable = false",
        "logging.log_sensitive_information = true",
        'storage.state_dir = "/tmp"',
        'storage = { state_dir = "/tmp" }',
        "metrics.prometheus.listen = 9035",
        "no toml",
        "a = 1\nb = 2",
    ],
)
def test_what_isolation_rests_on_stays(line: str) -> None:
    with pytest.raises(ConfigError):
        checked(line)


def test_others_lines_pass() -> None:
    line = "storage.permissions.dangerously_trust_everyone = true"
    assert checked(f" {line} ") == line


@pytest.mark.parametrize("name", ["a$b", "~", "a\nb"])
def test_a_directory_that_arti_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="state directory"):
        arti_toml(Path("/") / name)
