"""What first bytes are: v1 of which network, a proxy protocol, or something else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.bitcoin.messages import KNOWN_NETWORKS, MAINNET, SIGNET, Network, Networks, padded
from isoproxy.bitcoin.sniff import (
    MAX_VERSION,
    Detected,
    begins_proxy_protocol,
    begins_v1,
    detect,
    is_v1_peer,
    read_version,
    rewrite_version,
)
from isoproxy.bitcoin.v1 import VERSION, VersionRewrite, encode
from isoproxy.errors import LimitExceeded, RemoteProtocolError
from tests.unit.bitcoin.peers import HELLO, v1
from tests.unit.bitcoin.test_v1 import version_payload

CLOSED = KNOWN_NETWORKS.as_all()
UNKNOWN = b"\x01\x02\x03\x04"


@pytest.mark.parametrize("network", list(KNOWN_NETWORKS), ids=lambda network: network.name)
@pytest.mark.parametrize("kind", ["version", "tx", "mysterious"])
def test_every_network_is_told_by_its_magic_whatever_the_message(
    network: Network, kind: str
) -> None:
    hello = encode(network, padded(kind), b"")
    for size in range(4):
        assert detect(hello[:size]) is Detected.NEED_MORE
    for size in (4, 16, len(hello)):
        assert detect(hello[:size]) is network
    for position in range(4):
        wrong = bytearray(hello[: position + 1])
        wrong[position] ^= 0xA5
        assert detect(bytes(wrong)) is Detected.NOT_V1


def test_a_known_network_that_is_not_accepted_is_foreign() -> None:
    assert detect(HELLO, Networks([SIGNET])) is Detected.FOREIGN
    assert detect(HELLO[:3], Networks([SIGNET])) is Detected.NEED_MORE
    assert detect(encode(SIGNET, VERSION, b""), Networks([SIGNET])) is SIGNET


@pytest.mark.parametrize("kind", ["version", "tx", "getcfcheckpt"])
def test_closed_networks_tell_other_networks_from_what_is_no_v1(kind: str) -> None:
    hello = UNKNOWN + padded(kind)
    for size in range(16):
        assert detect(hello[:size], CLOSED) is Detected.NEED_MORE
    assert detect(hello, CLOSED) is Detected.FOREIGN
    assert detect(hello, CLOSED.with_networks([])) is Detected.FOREIGN
    assert detect(hello) is Detected.NOT_V1
    assert detect(encode(MAINNET, VERSION, b""), CLOSED) is MAINNET


def test_a_header_of_an_unknown_network_and_type_is_foreign_where_it_must_not_leave() -> None:
    assert detect(UNKNOWN + padded("mysterious"), CLOSED) is Detected.FOREIGN


@pytest.mark.parametrize(
    "first",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/1.1\r\nHost: example\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
        b"EHLO example.org\r\n",
        b"hello",
        bytes(64),
    ],
)
@pytest.mark.parametrize("networks", [KNOWN_NETWORKS, CLOSED])
def test_other_protocols_are_no_v1(first: bytes, networks: Networks) -> None:
    assert detect(first, networks) is Detected.NOT_V1


@given(st.binary(max_size=40), st.sampled_from([KNOWN_NETWORKS, CLOSED]))
def test_a_verdict_comes_within_sixteen_bytes(first: bytes, networks: Networks) -> None:
    found = detect(first, networks)
    assert len(first) < 16 or found is not Detected.NEED_MORE


def test_a_v2_opening_is_not_taken_for_anything_else() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        opening = dice.randbytes(64)
        assert detect(opening, CLOSED) is Detected.NOT_V1
        assert not begins_proxy_protocol(opening)
        assert is_v1_peer(opening, MAINNET) is False


def test_a_peer_that_begins_v1_is_told_by_sixteen_bytes_and_no_less() -> None:
    assert begins_v1(HELLO, MAINNET)
    assert not begins_v1(HELLO[:15], MAINNET)
    assert not begins_v1(HELLO, SIGNET)
    assert not begins_v1(v1("verack"), MAINNET)
    assert [is_v1_peer(HELLO[:size], MAINNET) for size in (0, 15, 16, 30)] == [
        None,
        None,
        True,
        True,
    ]
    assert is_v1_peer(HELLO[:5] + b"x", MAINNET) is False


@pytest.mark.parametrize(
    "first",
    [
        b"\x05",
        b"\x05\x01\x00",
        b"\x05\x03\x00\x02\x80",
        b"\x04",
        b"\x04\x01\x20\x8d\x0a\x00",
        b"CONNECT peer.example:8333 HTTP/1.1\r\n",
        b"CONN",
        b"GET http://peer.example/ HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
    ],
)
def test_proxy_protocols(first: bytes) -> None:
    assert begins_proxy_protocol(first)


@pytest.mark.parametrize(
    "first",
    [b"", b"\x05\x00", b"\x05\x02\x80", b"\x05\x01\x80\x00", b"get / ", b"CONNECTED", b"\x00"],
)
def test_no_proxy_protocols(first: bytes) -> None:
    assert not begins_proxy_protocol(first)


def test_version_is_read_once_it_is_complete() -> None:
    for size in range(len(HELLO)):
        assert read_version(HELLO[:size], MAINNET) is None
    version = read_version(HELLO + b"rest", MAINNET)
    assert version is not None
    assert version.recv_port == 8333


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (encode(MAINNET, VERSION, bytes(2000))[:MAX_VERSION], LimitExceeded),
        (HELLO[:-1] + b"\xff", RemoteProtocolError),
        (v1("verack"), RemoteProtocolError),
        (encode(MAINNET, VERSION, bytes(20)), RemoteProtocolError),
    ],
)
def test_first_messages_that_are_refused(stream: bytes, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error):
        read_version(stream, MAINNET)


def test_the_first_version_message_alone_is_rewritten() -> None:
    rewrite = VersionRewrite(scrub=True)
    for size in range(len(HELLO)):
        assert rewrite_version(HELLO[:size], MAINNET, rewrite) is None
    scrubbed = encode(MAINNET, VERSION, rewrite.apply(version_payload()))
    rest = v1("ping", bytes(8)) + HELLO
    assert rewrite_version(HELLO + rest, MAINNET, rewrite) == scrubbed + rest


def test_other_first_messages_stay_as_they_are() -> None:
    first = v1("block", bytes(5000))[:2000]
    assert rewrite_version(first, MAINNET, VersionRewrite(scrub=True)) == first
