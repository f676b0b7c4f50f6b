"""The fields of SOCKS: what is written is what is read, and both are RFC 1928's bytes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import LocalProtocolError
from isoproxy.socks.wire import (
    MAX_HANDSHAKE,
    Address,
    AddressType,
    Command,
    Request,
    Version,
    address_length,
    decode_host,
    encode_address,
    encode_reply,
)


@pytest.mark.parametrize(
    ("host", "port", "wire"),
    [
        (IPv4Address("192.0.2.1"), 80, "01 c0000201 0050"),
        ("192.0.2.1", 80, "01 c0000201 0050"),
        (IPv6Address("2001:db8::1"), 443, "04 20010db8000000000000000000000001 01bb"),
        ("2001:db8::1", 443, "04 20010db8000000000000000000000001 01bb"),
        (b"a.bit", 8333, "03 05 612e626974 208d"),
        (b"x" * 255, 0, "03 ff " + "78" * 255 + " 0000"),
    ],
)
def test_addresses(host: Address | bytes | str, port: int, wire: str) -> None:
    assert encode_address(host, port) == bytes.fromhex(wire)


@pytest.mark.parametrize("name", [b"", b"x" * 256])
def test_names_that_do_not_fit_are_our_own_mistake(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="1 to 255"):
        encode_address(name, 1)


@given(
    st.ip_addresses() | st.binary(min_size=1, max_size=255),
    st.integers(0, 0xFFFF),
)
def test_what_is_written_is_read(host: Address | bytes, port: int) -> None:
    wire = encode_address(host, port)
    length = address_length(wire[0], wire[1])
    assert length is not None
    assert len(wire) == 1 + length + 2
    text = host if isinstance(host, bytes) else str(host).encode()
    assert decode_host(wire[0], wire[1 : 1 + length]) == text
    assert int.from_bytes(wire[-2:]) == port


def test_other_types_of_addresses_have_no_length() -> None:
    known = {int(kind) for kind in AddressType}
    assert [kind for kind in range(256) if address_length(kind, 9) is not None] == sorted(known)


def test_replies() -> None:
    assert encode_reply(0) == bytes.fromhex("05 00 00 01 00000000 0000")
    assert encode_reply(0xF0, IPv4Address("192.0.2.1"), 1).hex() == "05f00001c00002010001"


def test_the_longest_handshake_is_three_messages_of_one_byte_lengths() -> None:
    greeting, authentication = 2 + 255, 3 + 255 + 255
    request = 3 + len(encode_address(b"x" * 255, 0))
    assert greeting + authentication + request == MAX_HANDSHAKE


def test_a_request_shows_neither_target_nor_credentials() -> None:
    request = Request(Version.SOCKS5, Command.CONNECT, b"marked.bit", 8333, b"marked", b"marked")
    assert repr(request) == "<Request SOCKS5 CONNECT>"
