"""Only names that cannot forge a line or be read as an address get through."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, PolicyRefusal
from isoproxy.net.target import Target

SAFE = re.compile(r"[a-z0-9._:-]{1,249}", re.ASCII)


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_whatever_is_accepted_is_safe_to_write_into_any_line(host: bytes, port: int) -> None:
    try:
        target = Target.parse(host, port)
    except PolicyRefusal as error:
        assert error.kind is ErrorKind.NAME_SYNTAX
        return
    assert SAFE.fullmatch(target.host)
    assert Target.parse(target.host, port) == target
    if target.is_ip:
        assert str(ip_address(target.host)) == target.host


@given(st.from_regex(r"[a-zA-Z0-9._-]{1,60}", fullmatch=True))
def test_case_does_not_matter(host: str) -> None:
    try:
        target = Target.parse(host, 80)
    except PolicyRefusal:
        with pytest.raises(PolicyRefusal):
            Target.parse(host.upper(), 80)
    else:
        assert Target.parse(host.upper().encode(), 80) == target


@pytest.mark.parametrize(
    ("host", "canonical", "is_ip"),
    [
        ("Example.COM", "example.com", False),
        ("example.com.", "example.com", False),
        ("_tor.x-y.bit", "_tor.x-y.bit", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("[2001:DB8::1]", "2001:db8::1", True),
        ("2001:db8:0::1", "2001:db8::1", True),
        ("::", "::", True),
        ("a" * 63 + ".onion", "a" * 63 + ".onion", False),
    ],
)
def test_accepted(host: str, canonical: str, is_ip: bool) -> None:
    assert Target.parse(host, 443) == Target(canonical, 443, is_ip)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b".",
        b"a..b",
        b".a",
        b"a b",
        b"a\r\n250 OK",
        b"a\r\nb",
        b"a\nb",
        b"a\rb",
        b"a\n",
        b"a\r",
        b"a\x00.b",
        b"caf\xe9.bit",
        b'a"b',
        b"a/b",
        b"a:80",
        b"*.bit",
        b"2130706433",
        b"0x7f.1",
        b"127.1",
        b"1.2.3.4.",
        b"01.2.3.4",
        b"256.1.1.1",
        b"foo.123",
        b"foo.0x7f",
        b"[1.2.3.4]",
        b"[::1",
        b"fe80::1%eth0",
        b"fe80::1%\r\n650 OK",
        b"1.2.3.4\r\n650 OK",
        b"1.2.3.4 ",
        b"a" * 250,
        "caf\xe9.test",
        "a.\u0661\u0662",
        "\u212a.test",
        "a.test\n",
    ],
)
def test_refused(host: bytes | str) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        Target.parse(host, 80)
    assert caught.value.kind is ErrorKind.NAME_SYNTAX


@pytest.mark.parametrize("port", [-1, 0x10000])
def test_a_port_has_sixteen_bits(port: int) -> None:
    with pytest.raises(PolicyRefusal):
        Target.parse("a.test", port)


@pytest.mark.parametrize(
    "host",
    [
        *("x.bit", "X.BIT", "x.bit.", "bit", "bit.", "printer.local", "localhost", "a.i2p"),
        *("h.home.arpa", "home.arpa.", "onion", "ONION."),
    ],
)
def test_never_sent_to_tor(host: str) -> None:
    assert not Target.parse(host, 80).may_be_sent_to_tor()


@pytest.mark.parametrize("host", ["x.bit.onion", "bit.example", "192.0.2.1", "nothome.arpa", "::1"])
def test_may_be_sent_to_tor(host: str) -> None:
    assert Target.parse(host, 80).may_be_sent_to_tor()


def test_text_form_brackets_ipv6_only() -> None:
    assert str(Target.parse("::1", 80)) == "[::1]:80"
    assert str(Target.parse("a.test", 80)) == "a.test:80"
    assert Target.parse("a.test", 80).with_host("b.onion") == Target("b.onion", 80)


@pytest.mark.parametrize("host", ["b.onion", "B.Onion.", "a.b.ONION."])
def test_an_onion_service_is_one_with_a_final_dot_too(host: str) -> None:
    target = Target.parse(host, 80)
    assert target.is_onion
    assert target.host == host.lower().rstrip(".")
    assert target.may_be_sent_to_tor()


@pytest.mark.parametrize("host", ["onion", "onion.", "x.onion.test", "xonion"])
def test_what_tor_takes_for_a_host_name_is_no_onion_service(host: str) -> None:
    assert not Target.parse(host, 80).is_onion
