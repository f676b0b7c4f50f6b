"""Endpoints: every written form, and every mistake told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint


def test_ipv4_has_host_and_port() -> None:
    endpoint = Endpoint.parse("127.0.0.1:9050")
    assert (endpoint.host, endpoint.port, endpoint.path) == ("127.0.0.1", 9050, None)


def test_ipv6_stands_in_brackets_and_is_canonical() -> None:
    endpoint = Endpoint.parse("[0:0::1]:9051")
    assert (endpoint.host, endpoint.port, endpoint.path) == ("::1", 9051, None)
    assert str(endpoint) == "[::1]:9051"


def test_unix_has_a_path_only() -> None:
    endpoint = Endpoint.parse("unix:/run/tor/socks")
    assert (endpoint.host, endpoint.port, endpoint.path) == (None, 0, "/run/tor/socks")


def test_none_is_no_endpoint() -> None:
    endpoint = Endpoint.parse("none")
    assert endpoint.is_none
    assert not Endpoint.parse("127.0.0.1:1").is_none
    assert not Endpoint.parse("unix:/a").is_none
    assert str(endpoint) == "none"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("localhost:9050", "resolver"),
        ("tor.example:9050", "resolver"),
        ("[tor.example]:9050", "resolver"),
        ("127.1:9050", "resolver"),
        (":9050", "resolver"),
        ("127.0.0.1:0", "between 1 and 65535"),
        ("127.0.0.1:65536", "between 1 and 65535"),
        ("[fe80::1%eth0]:9050", "%zone"),
        ("127.0.0.1", "written"),
        ("::1:9050", "written"),
        ("127.0.0.1:\uff19\uff10", "written"),
        ("127.0.0.1:-1", "written"),
        ("127.0.0.1:9050\n", "written"),
        ("", "written"),
        ("None", "written"),
        ("unix:run/tor/socks", "absolute"),
        ("unix:", "absolute"),
        ("unix:/run/tor\0", "printable"),
        ("unix:/run/a\nb", "printable"),
        ("unix:/" + "a" * 107, "has 108"),
        ("unix:/" + "é" * 54, "has 109"),
    ],
)
def test_a_mistake_is_named(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Endpoint.parse(text)


def test_a_path_of_107_bytes_fits() -> None:
    path = "/" + "a" * 106
    assert Endpoint.parse("unix:" + path).path == path


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_survives_the_round_trip(address: object, port: int) -> None:
    endpoint = Endpoint.tcp(str(address), port)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert endpoint.host == str(address)


@given(st.text())
def test_any_text_gives_an_endpoint_or_a_config_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ConfigError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
