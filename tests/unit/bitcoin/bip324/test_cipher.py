"""The packet ciphers, against the slow reference and the BIP's vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.bitcoin.bip324 import ellswift
from isoproxy.bitcoin.bip324.cipher import (
    IGNORE,
    LENGTH_SIZE,
    OVERHEAD,
    PacketOpener,
    PacketSealer,
    SessionKeys,
)
from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.errors import LocalProtocolError, RemoteProtocolError
from tests.unit.bitcoin import reference
from tests.unit.bitcoin.vectors import OURS, official, rows


def opened(opener: PacketOpener, packet: bytes) -> tuple[int, bytes]:
    """Header byte and contents of one packet."""
    size = opener.open_length(length_field(packet))
    assert size == len(packet) - OVERHEAD
    out = bytearray(1 + size)
    opener.open_into(packet[LENGTH_SIZE:], memoryview(out))
    return out[0], bytes(out[1:])


def length_field(packet: bytes | bytearray) -> int:
    """The masked length of a packet."""
    return int.from_bytes(packet[:LENGTH_SIZE], "little")


def keys_of(secret: bytes, magic: bytes, *, initiator: bool) -> tuple[SessionKeys, list[bytes]]:
    """The session's keys; and send length, send packet, receive length, receive packet."""
    keys = SessionKeys.derive(secret, magic)
    order = [keys.initiator_length, keys.initiator_packet]
    other = [keys.responder_length, keys.responder_packet]
    return keys, order + other if initiator else other + order


def test_our_packet_vectors_both_directions() -> None:
    for row in rows(OURS / "packets.csv"):
        initiator = row["initiator"] == "1"
        data = {name: bytes.fromhex(row[name]) for name in ("private", "ours", "theirs", "aad")}
        secret = ellswift.shared_secret(
            data["private"], data["ours"], data["theirs"], initiator=initiator
        )
        assert secret.hex() == row["secret"]
        keys, order = keys_of(secret, bytes.fromhex(row["magic"]), initiator=initiator)
        assert keys.session_id.hex() == row["session_id"]
        terminators = [keys.garbage_terminators[:16].hex(), keys.garbage_terminators[16:].hex()]
        sent = [row["send_terminator"], row["recv_terminator"]]
        assert terminators == (sent if initiator else sent[::-1])
        sealer = PacketSealer(order[0], order[1], b"")
        opener = PacketOpener(order[0], order[1])
        for _ in range(int(row["index"])):
            assert opened(opener, sealer.seal(b"")) == (0, b"")
        sealer._packets.aad = data["aad"]
        opener.authenticate(data["aad"])
        ignore = row["ignore"] == "1"
        contents = bytes.fromhex(row["contents"])
        packet = sealer.seal(contents, ignore=ignore)
        assert hashlib.sha256(packet).hexdigest() == row["packet_sha256"]
        assert packet[:64].hex() == row["packet_start"]
        assert opened(opener, packet) == (IGNORE if ignore else 0, contents)


def test_the_bips_packet_vectors_both_directions() -> None:
    for row in official("packet_encoding_test_vectors.csv"):
        initiator = row["in_initiating"] == "1"
        private, ours, theirs = (
            bytes.fromhex(row[name])
            for name in ("in_priv_ours", "in_ellswift_ours", "in_ellswift_theirs")
        )
        assert ellswift.decode(ours).hex() == row["mid_x_ours"]
        assert ellswift.decode(theirs).hex() == row["mid_x_theirs"]
        shared = reference.multiply(
            int.from_bytes(private, "big"), reference.lift(int(row["mid_x_theirs"], 16))
        )
        assert shared is not None
        assert f"{shared[0]:064x}" == row["mid_x_shared"]
        secret = ellswift.shared_secret(private, ours, theirs, initiator=initiator)
        assert secret.hex() == row["mid_shared_secret"]
        keys, order = keys_of(secret, bytes.fromhex("f9beb4d9"), initiator=initiator)
        for name, key in (
            ("mid_initiator_l", keys.initiator_length),
            ("mid_initiator_p", keys.initiator_packet),
            ("mid_responder_l", keys.responder_length),
            ("mid_responder_p", keys.responder_packet),
            ("out_session_id", keys.session_id),
        ):
            assert key.hex() == row[name]
        terminators = [keys.garbage_terminators[:16].hex(), keys.garbage_terminators[16:].hex()]
        sent = [row["mid_send_garbage_terminator"], row["mid_recv_garbage_terminator"]]
        assert terminators == (sent if initiator else sent[::-1])
        sealer, opener = PacketSealer(order[0], order[1], b""), PacketOpener(order[0], order[1])
        for _ in range(int(row["in_idx"])):
            opened(opener, sealer.seal(b""))
        aad = bytes.fromhex(row["in_aad"])
        sealer._packets.aad = aad
        opener.authenticate(aad)
        contents = bytes.fromhex(row["in_contents"]) * int(row["in_multiply"])
        ignore = row["in_ignore"] == "1"
        packet = sealer.seal(contents, ignore=ignore)
        if row["out_ciphertext"]:
            assert packet.hex() == row["out_ciphertext"]
        if row["out_ciphertext_endswith"]:
            assert packet.hex().endswith(row["out_ciphertext_endswith"])
        assert opened(opener, packet) == (IGNORE if ignore else 0, contents)


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=4),
    st.sampled_from([0, 222, 447]),
)
@settings(max_examples=10)  # the reference takes some 100 us for a packet
def test_packets_are_the_references(
    length_key: bytes, packet_key: bytes, packets: list[tuple[bytes, bool]], skipped: int
) -> None:
    sealer = PacketSealer(length_key, packet_key, b"")
    slow = reference.Sender(length_key, packet_key)
    for _ in range(skipped):
        sealer.seal(b"")
    for _ in range(skipped):
        slow.packet(b"")
    for contents, ignore in packets:
        assert sealer.seal(contents, ignore=ignore) == slow.packet(contents, ignore=ignore)


def test_every_altered_byte_is_noticed() -> None:
    packet = PacketSealer(bytes(32), bytes(32), b"garbage").seal(b"contents")
    for position in range(LENGTH_SIZE, len(packet)):
        altered = bytearray(packet)
        altered[position] ^= 1
        opener = PacketOpener(bytes(32), bytes(32))
        opener.authenticate(b"garbage")
        opener.open_length(length_field(packet))
        with pytest.raises(RemoteProtocolError):
            opener.open_into(bytes(altered[LENGTH_SIZE:]), memoryview(bytearray(9)))


def test_garbage_is_authenticated_by_the_first_packet_only() -> None:
    sealer = PacketSealer(bytes(32), bytes(32), b"garbage")
    first, second = sealer.seal(b"", ignore=True), sealer.seal(b"two")
    opener = PacketOpener(bytes(32), bytes(32))
    with pytest.raises(RemoteProtocolError):
        opened(opener, first)
    opener = PacketOpener(bytes(32), bytes(32))
    opener.authenticate(b"garbage")
    assert opened(opener, first) == (IGNORE, b"")
    assert opened(opener, second) == (0, b"two")


def test_packets_are_queued_behind_what_is_there() -> None:
    queueing, sealing = (PacketSealer(bytes(32), bytes(32), b"") for _ in range(2))
    out = ByteQueue()
    out.append(b"before")
    for text in (b"one", b"two"):
        queueing.seal_onto(memoryview(b"\x00" + text), out)
    assert out.take() == b"before" + sealing.seal(b"one") + sealing.seal(b"two")


def test_a_packet_is_opened_where_it_is() -> None:
    packet = bytearray(PacketSealer(bytes(32), bytes(32), b"").seal(b"hello"))
    view = memoryview(packet)
    opener = PacketOpener(bytes(32), bytes(32))
    assert opener.open_length(length_field(packet)) == 5
    opener.open_into(view[3:], view[3:9])
    assert bytes(view[3:9]) == b"\x00hello"


def test_contents_beyond_the_length_field_are_refused() -> None:
    sealer = PacketSealer(bytes(32), bytes(32), b"")
    longest = bytes(2**24 - 1)
    assert len(sealer.seal(longest)) == len(longest) + OVERHEAD
    with pytest.raises(LocalProtocolError):
        sealer.seal(longest + b"x")
    with pytest.raises(LocalProtocolError):
        sealer.seal_onto(b"", ByteQueue())


def test_the_first_epochs_stream_waits_until_it_is_needed() -> None:
    sealer = PacketSealer(bytes(32), bytes(32), b"")
    assert sealer._lengths._stream == b""
    sealer.seal(b"")
    assert len(sealer._lengths._stream) == 704
