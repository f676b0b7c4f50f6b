"""v1 framing, recognising it, VERSION."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.bitcoin.messages import MAINNET, NAMECOIN, REGTEST, Network, padded
from isoproxy.bitcoin.v1 import (
    HEADER,
    HEADER_LENGTH,
    SERVICE_P2P_V2,
    VERSION,
    V1Receiver,
    VersionRewrite,
    checksum,
    encode,
    parse_version,
)
from isoproxy.errors import LimitExceeded, RemoteProtocolError


def version_payload(
    agent: bytes = b"/test:1/", host: bytes = IPv6Address("::ffff:1.2.3.4").packed, port: int = 8333
) -> bytes:
    size = bytes([len(agent)]) if len(agent) < 253 else b"\xfd" + struct.pack("<H", len(agent))
    return (
        struct.pack("<iQq", 70016, 1, 1_700_000_000)
        + struct.pack("<Q", 9)
        + host
        + struct.pack(">H", port)
        + struct.pack("<Q", 1)
        + IPv6Address("::ffff:192.168.1.7").packed
        + struct.pack(">H", 8333)
        + bytes(range(8))
        + size
        + agent
        + struct.pack("<iB", 800_000, 1)
    )


def messages_of(receiver: V1Receiver) -> list[tuple[bytes, bytes]]:
    found = []
    while (message := receiver.next_message()) is not None:
        kind, start, end = message
        found.append((kind, bytes(receiver.queue.data[start + HEADER_LENGTH : end])))
    return found


def test_known_message() -> None:
    verack = encode(MAINNET, padded("verack"), b"")
    assert verack.hex() == "f9beb4d976657261636b000000000000000000005df6e0e2"


@given(
    st.lists(st.tuples(st.sampled_from(["tx", "inv", "verack"]), st.binary(max_size=90))),
    st.lists(st.integers(1, 50)),
)
def test_framing_survives_every_split(messages: list[tuple[str, bytes]], cuts: list[int]) -> None:
    wanted = [(padded(name), payload) for name, payload in messages]
    stream = b"".join(encode(MAINNET, kind, payload) for kind, payload in wanted)
    receiver, found = V1Receiver(MAINNET), []
    for cut in [*cuts, len(stream)]:
        receiver.queue.append(stream[:cut])
        stream = stream[cut:]
        found += messages_of(receiver)
    assert found == wanted


def test_one_byte_at_a_time() -> None:
    receiver, found = V1Receiver(MAINNET), []
    for byte in encode(MAINNET, VERSION, version_payload()):
        receiver.queue.append(bytes([byte]))
        found += messages_of(receiver)
    assert found == [(VERSION, version_payload())]


def test_a_wrong_checksum_costs_the_message_alone() -> None:
    receiver = V1Receiver(MAINNET)
    bad = bytearray(encode(MAINNET, padded("tx"), b"payload"))
    bad[-1] ^= 1
    receiver.queue.append(bytes(bad) + encode(MAINNET, padded("tx"), b"good"))
    assert messages_of(receiver) == [(padded("tx"), b"good")]
    assert receiver.corrupt == 1


def test_an_unprintable_type_costs_the_message_alone() -> None:
    receiver = V1Receiver(MAINNET)
    receiver.queue.append(encode(MAINNET, b"\x01" + bytes(11), b""))
    receiver.queue.append(encode(MAINNET, b"unheardof" + bytes(3), b""))
    assert messages_of(receiver) == [(b"unheardof" + bytes(3), b"")]
    assert receiver.untyped == 1


def test_a_foreign_magic_ends_the_connection() -> None:
    receiver = V1Receiver(MAINNET)
    receiver.queue.append(encode(REGTEST, padded("tx"), b""))
    with pytest.raises(RemoteProtocolError, match="another network"):
        receiver.next_message()


@pytest.mark.parametrize(("network", "limit"), [(MAINNET, 4_000_000), (NAMECOIN, 2**24 - 14)])
def test_an_oversized_message_is_refused_by_its_header(network: Network, limit: int) -> None:
    for length, refused in ((limit, False), (limit + 1, True), (0xFFFFFFFF, True)):
        receiver = V1Receiver(network)
        receiver.queue.append(HEADER.pack(network.magic, padded("tx"), length, bytes(4)))
        if refused:
            with pytest.raises(LimitExceeded):
                receiver.next_message()
        else:
            assert receiver.next_message() is None


def test_version_is_read() -> None:
    version = parse_version(version_payload())
    assert version.protocol == 70016
    assert version.services == 1
    assert version.recv_host == IPv4Address("1.2.3.4")
    assert version.recv_port == 8333
    assert version.user_agent == b"/test:1/"
    host = IPv6Address("2001:db8::7")
    assert parse_version(version_payload(host=host.packed)).recv_host == host


@given(st.binary(max_size=500))
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    rewrite = VersionRewrite(scrub=True, suffix=b"x", advertise_v2=True)
    for read in (parse_version, rewrite.apply):
        with contextlib.suppress(RemoteProtocolError):
            read(payload)


@pytest.mark.parametrize("size", [0, 5, 252, 253, 256])
def test_user_agents_of_every_size(size: int) -> None:
    agent = b"a" * size
    assert parse_version(version_payload(agent)).user_agent == agent


def test_too_long_user_agents_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_version(version_payload(b"a" * 257))


@pytest.mark.parametrize(
    "size",
    [
        b"\xfd\x05\x00",
        b"\xfd\xfc\x00",
        b"\xfd\x08",
        b"\xfd",
        b"\xfe\x05\x00\x00\x00",
        b"\xfe\x00\x01\x01\x00",
        b"\xff\x05" + bytes(7),
        b"\xfe",
        b"\xff",
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize("rest", [300, 5])
def test_sizes_of_user_agents_that_core_does_not_read_are_refused(size: bytes, rest: int) -> None:
    payload = version_payload()[:80] + size + b"a" * rest
    with pytest.raises(RemoteProtocolError):
        parse_version(payload)
    with pytest.raises(RemoteProtocolError):
        VersionRewrite(suffix=b"/x:1/").apply(payload)


def test_nothing_is_rewritten_by_default() -> None:
    rewrite = VersionRewrite()
    assert not rewrite
    assert rewrite.apply(version_payload()) == version_payload()


def test_scrubbing_takes_both_addresses_and_leaves_the_rest() -> None:
    before = version_payload()
    after = VersionRewrite(scrub=True).apply(before)
    assert len(after) == len(before)
    assert after[20:46] == bytes(26)
    assert after[46:54] == before[4:12]
    assert after[54:72] == bytes(18)
    assert after[:20] + after[72:] == before[:20] + before[72:]


def test_bit_11_is_set_in_both_places() -> None:
    after = VersionRewrite(advertise_v2=True).apply(version_payload())
    assert parse_version(after).services == 1 | SERVICE_P2P_V2
    assert int.from_bytes(after[46:54], "little") == 1 | SERVICE_P2P_V2


@pytest.mark.parametrize("size", [0, 240, 251])
def test_a_suffix_that_fits_is_appended(size: int) -> None:
    after = VersionRewrite(suffix=b"/x:1/").apply(version_payload(b"a" * size))
    assert parse_version(after).user_agent == b"a" * size + b"/x:1/"
    assert after[-5:] == version_payload()[-5:]


def test_a_suffix_that_does_not_fit_is_left_out() -> None:
    after = VersionRewrite(suffix=b"/x:1/").apply(version_payload(b"a" * 252))
    assert parse_version(after).user_agent == b"a" * 252
    with pytest.raises(ValueError, match="256"):
        VersionRewrite(suffix=b"x" * 257)


def test_checksum() -> None:
    assert checksum(b"").hex() == "5df6e0e2"
