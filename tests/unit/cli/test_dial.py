"""Which listener `isoproxy dial` goes through, and for how long it waits."""

from __future__ import annotations

import pytest

from isoproxy import client
from isoproxy.cli import parser
from isoproxy.cli.dial import TIMEOUT_S, _proxy
from isoproxy.errors import ConfigError


def proxy(*words: str) -> str:
    return _proxy(parser().parse_args(["dial", "-c", "/dev/null", "example.com:80", *words]))


def test_it_waits_as_long_as_the_client_library() -> None:
    assert client.TIMEOUT_S == TIMEOUT_S


def test_the_first_listener_that_keeps_ids_apart_is_taken() -> None:
    assert proxy() == "127.0.0.1:9250"
    loose = ["--set", 'listener.0.isolate=["DestAddr"]']
    assert proxy(*loose, "--set", "listener.1.address=127.0.0.1:9999") == "127.0.0.1:9999"
    with pytest.raises(ConfigError, match="use --proxy"):
        proxy(*loose)


def test_a_proxy_that_is_named_is_taken() -> None:
    assert proxy("--proxy", "unix:/run/x") == "unix:/run/x"
    with pytest.raises(ConfigError, match="--proxy: "):
        proxy("--proxy", "localhost:1")
