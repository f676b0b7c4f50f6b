"""Endpoints: every written form, and every mistake told apart."""

from __future__ import annotations

import socket

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


@pytest.mark.parametrize(
    ("text", "shown", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("[::0001]:65535", "[::1]:65535", True),
        ("10.0.0.1:9250", "10.0.0.1:9250", False),
        ("unix:/run/x:0", "unix:/run/x:0", True),
    ],
)
def test_a_listening_address_may_leave_the_port_to_the_system(
    text: str, shown: str, loopback: bool
) -> None:
    address = Endpoint.parse_listening(text)
    assert (str(address), address.is_loopback) == (shown, loopback)


@pytest.mark.parametrize(
    "text",
    ["", "9250", "none", "localhost:1", "localhost:0", "::1:1", "[127.0.0.1]:1.", "[fe80::1%lo]:0",
     "1.2.3.4:65536", "1.2.3.4:", "1.2.3.4:-1", "1.2.3.4:\u0661", "unix:run/x", "unix:",
     "unix:/" + "x" * 107, "unix:/a\0b", "01.2.3.4:1"],
)  # fmt: skip
def test_what_cannot_be_listened_at_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse_listening(text)
    assert len(text) < 10 or text not in str(caught.value)


@given(st.text())
def test_a_listening_address_survives_the_round_trip(text: str) -> None:
    try:
        address = Endpoint.parse_listening(text)
    except ConfigError:
        return
    assert Endpoint.parse_listening(str(address)) == address


@pytest.mark.parametrize(
    ("text", "family", "address"),
    [
        ("127.0.0.1:80", socket.AF_INET, ("127.0.0.1", 80)),
        ("[::1]:80", socket.AF_INET6, ("::1", 80)),
        ("unix:/run/x", socket.AF_UNIX, "/run/x"),
    ],
)
def test_what_a_socket_takes(text: str, family: socket.AddressFamily, address: object) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.family, endpoint.address) == (family, address)
    assert endpoint.is_unix == (family == socket.AF_UNIX)
