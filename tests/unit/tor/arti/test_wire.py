"""Arti's RPC lines: what Arti 2.7 was seen to say, and what nobody should."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.arti import wire
from isoproxy.tor.control.events import Bootstrap

PROXIES = {
    "proxies": [
        {"listener": {"socks5": {"tcp_address": "127.0.0.1:40123"}}},
        {"listener": {"http_connect": {"tcp_address": "127.0.0.1:40123"}}},
    ]
}


def test_a_request_is_one_line() -> None:
    line = wire.request(3, "connection", "auth:authenticate", scheme="auth:inherent")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "id": 3,
        "obj": "connection",
        "method": "auth:authenticate",
        "params": {"scheme": "auth:inherent"},
    }


def test_an_arti_begins_with_its_banner() -> None:
    wire.check_banner(b'{"arti_rpc":{}}\n')
    for line in (b"220 mail\n", b"[]\n", b"{}\n", b'"arti_rpc"\n'):
        with pytest.raises(OperationError):
            wire.check_banner(line)


def test_an_answer_is_that_of_its_request() -> None:
    assert wire.result(3, b'{"id":3,"result":{"session":"abc"}}\n') == {"session": "abc"}
    with pytest.raises(OperationError, match="no Arti says"):
        wire.result(4, b'{"id":3,"result":{"session":"abc"}}\n')
    with pytest.raises(OperationError, match="refuses"):
        wire.result(3, b'{"id":3,"error":{"message":"no"}}\n')


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"ready": True, "fraction": 1.0, "blocked": None}, Bootstrap(100, "done", "Done")),
        (
            {"ready": False, "fraction": 0.31, "blocked": None},
            Bootstrap(31, "arti", "Bootstrapping"),
        ),
        (
            {"ready": False, "fraction": 1.0, "blocked": "clock is skewed"},
            Bootstrap(99, "arti", "Bootstrapping", "clock is skewed"),
        ),
        (
            {"ready": False, "fraction": float("nan"), "blocked": "\x1b[2J"},
            Bootstrap(0, "arti", "Bootstrapping"),
        ),
        (
            {"ready": False, "fraction": float("inf"), "blocked": 7},
            Bootstrap(99, "arti", "Bootstrapping"),
        ),
    ],
)
def test_the_status_is_a_bootstrap(answer: dict[str, object], told: Bootstrap) -> None:
    assert wire.bootstrap(answer) == told


def test_the_socks_port_is_one_of_this_machine() -> None:
    assert wire.socks_port(PROXIES) == Endpoint.tcp("127.0.0.1", 40123)
    listener = {"socks5": {"tcp_address": "192.0.2.1:9150"}}
    elsewhere: dict[str, object] = {"proxies": [{"listener": listener}]}
    answers: list[dict[str, object]] = [elsewhere, {}, {"proxies": [{"listener": {"socks5": {}}}]}]
    for answer in answers:
        with pytest.raises(OperationError, match="no SOCKS port"):
            wire.socks_port(answer)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["ready", "fraction", "blocked", "proxies", "listener", "socks5", "session", "id"]
)


@given(st.dictionaries(keys, values))
def test_whatever_it_says_is_read_or_refused(answer: dict[str, object]) -> None:
    for read in (wire.session, wire.client, wire.bootstrap, wire.socks_port):
        try:
            read(answer)
        except OperationError:
            continue


@given(st.binary(max_size=200))
def test_garbage_is_refused(line: bytes) -> None:
    with pytest.raises(OperationError):
        wire.result(1, line)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(OperationError):
        wire.result(1, b"[" * 30000)
