"""The v2 transport's state machine: two of ours, splits, decoys, garbage, hostile peers."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.bitcoin.bip324.cipher import SessionKeys
from isoproxy.bitcoin.bip324.ellswift import ENCODED_LENGTH, KeyPair
from isoproxy.bitcoin.bip324.transport import MAX_GARBAGE, State, Transport, self_test
from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.messages import MAINNET, NAMECOIN, REGTEST, Network
from isoproxy.bitcoin.v1 import VERSION, encode
from isoproxy.errors import (
    LimitExceeded,
    LocalProtocolError,
    OperationError,
    RemoteProtocolError,
)


def side(
    *,
    initiator: bool,
    network: Network = MAINNET,
    garbage: bytes = b"",
    decoys: tuple[bytes, ...] = (),
) -> Transport:
    return Transport(network, KeyPair.fresh(), initiator=initiator, garbage=garbage, decoys=decoys)


def shaken(
    garbage: tuple[bytes, bytes] = (b"", b""), decoys: tuple[bytes, ...] = ()
) -> tuple[Transport, Transport]:
    one = side(initiator=True, garbage=garbage[0], decoys=decoys)
    two = side(initiator=False, garbage=garbage[1], decoys=decoys)
    reply, _ = two.receive(one.opening())
    reply, _ = one.receive(reply)
    two.receive(reply)
    return one, two


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    found = []
    for cut in cuts:
        found.append(data[:cut])
        data = data[cut:]
    return [piece for piece in [*found, data] if piece]


@pytest.mark.parametrize("sizes", [(0, 0), (1, 4094), (MAX_GARBAGE, MAX_GARBAGE)])
def test_handshake(sizes: tuple[int, int]) -> None:
    one, two = shaken((os.urandom(sizes[0]), os.urandom(sizes[1])))
    assert one.state is two.state is State.READY
    assert one.session_id == two.session_id
    assert one.receive(two.seal(b"hello")) == (b"", [b"hello"])
    assert two.receive(one.seal(b"hello")) == (b"", [b"hello"])


@given(
    st.binary(max_size=60),
    st.binary(max_size=60),
    st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=12),
    st.lists(st.integers(1, 90), max_size=40),
)
@settings(max_examples=60)
def test_every_split_with_decoys_anywhere(
    garbage_one: bytes,
    garbage_two: bytes,
    packets: list[tuple[bytes, bool]],
    cuts: list[int],
) -> None:
    one = side(initiator=True, garbage=garbage_one, decoys=(b"decoy", b""))
    two = side(initiator=False, garbage=garbage_two, decoys=(b"", b"more"))
    to_two, to_one = one.opening(), b""
    for piece in pieces(to_two, cuts):
        to_one += two.receive(piece)[0]
    to_two = b""
    for piece in pieces(to_one, cuts):
        to_two += one.receive(piece)[0]
    to_two += b"".join(one.seal(contents, ignore=ignore) for contents, ignore in packets)
    found = []
    for piece in pieces(to_two, cuts):
        output, contents = two.receive(piece)
        assert output == b""
        found += contents
    assert found == [contents for contents, ignore in packets if not ignore]
    assert two.decoys_received == 2 + sum(ignore for _, ignore in packets)
    assert one.state is two.state is State.READY


@given(st.lists(st.integers(1, 3000), max_size=30), st.integers(0, 2**32))
@settings(max_examples=10)
def test_splits_anywhere_across_rekeys(cuts: list[int], seed: int) -> None:
    chance = random.Random(seed)
    packets = [(chance.randbytes(chance.randrange(20)), chance.random() < 0.3) for _ in range(500)]
    one, two = shaken()
    stream = b"".join(one.seal(contents, ignore=ignore) for contents, ignore in packets)
    found = [content for piece in pieces(stream, cuts) for content in two.receive(piece)[1]]
    assert found == [contents for contents, ignore in packets if not ignore]


def test_one_byte_at_a_time() -> None:
    one, two = side(initiator=True, garbage=b"gg"), side(initiator=False, garbage=b"g" * 30)
    queues, sides = {id(one): b"", id(two): one.opening()}, {id(one): two, id(two): one}
    for _ in range(400):
        for transport in (one, two):
            data, queues[id(transport)] = queues[id(transport)][:1], queues[id(transport)][1:]
            output, _ = transport.receive(data)
            queues[id(sides[id(transport)])] += output
    assert one.state is two.state is State.READY


def test_the_key_is_answered_before_the_terminator_comes() -> None:
    one, two = side(initiator=True), side(initiator=False)
    reply, _ = two.receive(one.opening())
    assert len(reply) == 64 + 16 + 20
    finish, _ = one.receive(reply[:64])
    assert len(finish) == 36
    assert one.can_send
    assert one.state is State.GARBAGE
    _, contents = two.receive(finish + one.seal(b"at once"))
    assert contents == [b"at once"]


def test_rekeys() -> None:
    one, two = shaken()
    for number in range(3 * 224 + 5):
        contents = number.to_bytes(2, "big")
        assert two.receive(one.seal(contents))[1] == [contents]


def test_the_largest_contents_of_each_network() -> None:
    for network, limit in ((MAINNET, 4_000_013), (NAMECOIN, 2**24 - 1)):
        one, two = side(initiator=True, network=network), side(initiator=False, network=network)
        reply, _ = one.receive(two.receive(one.opening())[0])
        two.receive(reply)
        assert len(two.receive(one.seal(bytes(limit)))[1][0]) == limit
    one, two = shaken()
    with pytest.raises(LimitExceeded):
        two.receive(one.seal(bytes(4_000_014))[:3])


def test_contents_of_the_version_packet_mean_nothing() -> None:
    one, two = side(initiator=True), side(initiator=False)
    one.receive(two.receive(one.opening())[0])
    terminator = two._recv_terminator
    assert one._sealer is not None
    # the sealer has sent its version packet; make the peer take the next one for it
    assert two._opener is not None
    two._opener.open_length(0)
    two._opener._packets._number += 1
    assert two.receive(terminator + one.seal(b"reserved") + one.seal(b"real"))[1] == [b"real"]


def test_responder_says_nothing_to_a_v1_client() -> None:
    two = side(initiator=False)
    hello = encode(MAINNET, VERSION, bytes(90))
    for position in range(16):
        assert two.state is State.V1_CHECK
        assert two.receive(hello[position : position + 1]) == (b"", [])
    assert two.state is State.V1
    assert two.inbox.take() == hello[:16]


def test_responder_answers_the_first_byte_that_differs() -> None:
    for position in range(16):
        two = side(initiator=False)
        first = bytearray((MAINNET.magic + VERSION)[: position + 1])
        first[position] ^= 1
        assert len(two.receive(bytes(first))[0]) == 64


def test_a_v1_client_of_another_network_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="another network"):
        side(initiator=False).receive(encode(REGTEST, VERSION, bytes(90)))
    two = side(initiator=False)
    hello = encode(REGTEST, VERSION, bytes(90))
    for byte in hello[:15]:
        two.receive(bytes([byte]))
    with pytest.raises(RemoteProtocolError, match="another network"):
        two.receive(hello[15:16])


def received_until_refused(transport: Transport, piece: bytes) -> int:
    """How many bytes it takes until the transport refuses more of `piece`."""
    received = 0
    with contextlib.suppress(RemoteProtocolError):
        while received < 10_000:
            received += len(piece)
            transport.receive(piece)
    return received


@pytest.mark.parametrize("piece", [1, 100, 5000])
def test_endless_garbage_ends_at_byte_4111(piece: int) -> None:
    one = side(initiator=True)
    one.receive(bytes(64))
    assert received_until_refused(one, b"\xaa" * piece) == -(-4111 // piece) * piece
    assert len(one.inbox) < 4111 + piece


def test_another_network_never_finds_the_terminator() -> None:
    one, two = side(initiator=True), side(initiator=False, network=REGTEST)
    reply, _ = one.receive(two.receive(one.opening())[0])
    two.receive(reply)
    assert one.state is State.GARBAGE
    assert two.state is State.GARBAGE
    with pytest.raises(LimitExceeded):
        one.receive(bytes(5000))


def test_altered_garbage_is_noticed() -> None:
    one, two = side(initiator=True, garbage=b"garbage"), side(initiator=False)
    opening = one.opening()
    reply, _ = one.receive(two.receive(opening[:-1] + b"X")[0])
    with pytest.raises(RemoteProtocolError, match="authentic"):
        two.receive(reply)


@pytest.mark.parametrize("initiator", [True, False])
def test_a_peer_that_does_not_authenticate_its_garbage_is_noticed(initiator: bool) -> None:
    """Of what it sends, whichever side it is, its first packet knows nothing."""
    ours, peer = side(initiator=initiator), side(initiator=not initiator)
    if initiator:
        reply, _ = peer.receive(ours.opening())
        hello = reply[:ENCODED_LENGTH] + b"garbage" + reply[ENCODED_LENGTH:]
    else:
        reply, _ = ours.receive(peer.opening() + b"garbage")
        hello, _ = peer.receive(reply)
    with pytest.raises(RemoteProtocolError, match="authentic"):
        ours.receive(hello)


def test_every_altered_byte_of_a_packet_ends_the_connection() -> None:
    for position in range(3, 25):
        one, two = shaken()
        packet = bytearray(one.seal(b"hello"))
        packet[position] ^= 0x10
        with pytest.raises(RemoteProtocolError):
            two.receive(bytes(packet))


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("bit", [1, 128])
def test_an_altered_length_ends_the_connection(position: int, bit: int) -> None:
    """The length is not authenticated by itself: the packet that it cuts out is not authentic."""
    one, two = shaken()
    packet = bytearray(one.seal(b"hello"))
    packet[position] ^= bit
    with pytest.raises(RemoteProtocolError):
        two.receive(bytes(packet) + bytes(4_000_100))


def test_replay_and_reordering_are_noticed() -> None:
    one, two = shaken()
    first, second = one.seal(b"first"), one.seal(b"other")
    two.receive(first)
    with pytest.raises(RemoteProtocolError):
        two.receive(first + bytes(4_000_100))
    _, two = shaken()
    with pytest.raises(RemoteProtocolError):
        two.receive(second + bytes(4_000_100))


def test_a_flood_of_decoys_takes_no_memory() -> None:
    one, two = shaken()
    for _ in range(500):
        two.receive(one.seal(bytes(5000), ignore=True))
    assert two.decoys_received == 500
    assert len(two.inbox) == 0
    assert len(two.inbox.data) < 300_000


def test_a_flood_of_decoys_before_the_version_packet_takes_no_memory() -> None:
    one, two = side(initiator=True), side(initiator=False, decoys=(bytes(5000),) * 500)
    reply, _ = two.receive(one.opening())
    for piece in pieces(reply, [16_384] * (len(reply) // 16_384)):
        one.receive(piece)
        assert len(one.inbox.data) < 300_000
    assert one.state is State.READY
    assert one.decoys_received == 500


def test_nothing_can_be_sent_before_the_keys() -> None:
    one = side(initiator=True)
    assert not one.can_send
    with pytest.raises(LocalProtocolError):
        one.seal(b"x")
    with pytest.raises(LocalProtocolError):
        one.seal_onto(b"\0x", ByteQueue())


def test_the_private_key_is_gone_after_the_exchange() -> None:
    one, two = shaken()
    assert one._keys.spent
    assert two._keys.spent


def test_self_test_notices_a_cipher_that_computes_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    self_test.cache_clear()
    self_test()
    right = SessionKeys.derive
    monkeypatch.setattr(SessionKeys, "derive", lambda secret, magic: right(secret, bytes(4)))
    self_test.cache_clear()
    with pytest.raises(OperationError, match="BIP324"):
        self_test()
    monkeypatch.undo()
    self_test()


def test_too_much_garbage_of_our_own_is_a_defect() -> None:
    with pytest.raises(LocalProtocolError):
        side(initiator=True, garbage=bytes(4096))


@given(st.binary(max_size=4300), st.booleans())
@settings(max_examples=40)
def test_any_bytes_are_bounded(data: bytes, initiator: bool) -> None:
    transport = side(initiator=initiator)
    with contextlib.suppress(RemoteProtocolError):
        transport.receive(data)
        transport.receive(data)
    assert len(transport.inbox) <= 2 * len(data)
