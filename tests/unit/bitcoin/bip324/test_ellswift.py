"""Key exchange by libsecp256k1, against our own slow arithmetic and the BIP's vectors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.bitcoin.bip324 import ellswift
from isoproxy.bitcoin.bip324.ellswift import KeyPair
from isoproxy.errors import LocalProtocolError, OperationError
from tests.unit.bitcoin import reference
from tests.unit.bitcoin.vectors import OURS, official, rows


def test_self_test_passes() -> None:
    ellswift.self_test.cache_clear()
    ellswift.self_test()


def test_self_test_notices_a_library_that_computes_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ellswift, "decode", lambda encoded: bytes(32))
    ellswift.self_test.cache_clear()
    with pytest.raises(OperationError, match="coincurve"):
        ellswift.self_test()
    monkeypatch.undo()
    ellswift.self_test()


def test_our_decoding_vectors() -> None:
    for row in rows(OURS / "keys.csv"):
        assert ellswift.decode(bytes.fromhex(row["encoded"])).hex() == row["x"]


def test_the_bips_decoding_vectors() -> None:
    for row in official("ellswift_decode_test_vectors.csv"):
        assert ellswift.decode(bytes.fromhex(row["ellswift"])).hex() == row["x"]


def test_both_sides_agree_and_with_the_reference() -> None:
    ours, theirs = KeyPair.fresh(), KeyPair.fresh()
    private = int.from_bytes(ours._secret, "big")
    expected = reference.shared_secret(private, ours.encoded, theirs.encoded, initiator=True)
    one, two = ours.encoded, theirs.encoded
    assert ours.exchange(two, initiator=True) == expected
    assert theirs.exchange(one, initiator=False) == expected


@given(st.binary(min_size=64, max_size=64))
@settings(max_examples=20)
def test_any_64_bytes_are_a_key(theirs: bytes) -> None:
    pair = KeyPair.fresh()
    private = int.from_bytes(pair._secret, "big")
    expected = reference.shared_secret(private, pair.encoded, theirs, initiator=False)
    assert pair.exchange(theirs, initiator=False) == expected


def test_a_key_is_used_once_and_overwritten() -> None:
    pair = KeyPair.fresh()
    memory = pair._secret
    assert any(memory)
    pair.exchange(bytes(64), initiator=True)
    assert pair.spent
    assert bytes(memory) == bytes(32)
    with pytest.raises(LocalProtocolError):
        pair.exchange(bytes(64), initiator=True)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_numbers_that_are_no_private_keys(secret: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        ellswift.encode(secret, bytes(32))
    assert ellswift.public_x(secret) is None


def test_no_secret_is_shared_with_the_key_zero() -> None:
    with pytest.raises(LocalProtocolError):
        ellswift.shared_secret(bytes(32), bytes(64), bytes(64), initiator=True)


def test_wrong_lengths_never_reach_the_library() -> None:
    with pytest.raises(LocalProtocolError):
        ellswift.encode(bytes(31), bytes(32))
    with pytest.raises(LocalProtocolError):
        ellswift.encode(b"\x01" * 32, bytes(33))
    with pytest.raises(LocalProtocolError):
        ellswift.decode(bytes(63))
    with pytest.raises(LocalProtocolError):
        KeyPair.fresh().exchange(bytes(65), initiator=True)


@pytest.mark.parametrize("prefix", [b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01" + b"x" * 29])
def test_a_chosen_prefix(prefix: bytes) -> None:
    ours, theirs = KeyPair.fresh(prefix), KeyPair.fresh()
    assert ours.encoded.startswith(prefix)
    one, two = ours.encoded, theirs.encoded
    assert ours.exchange(two, initiator=True) == theirs.exchange(one, initiator=False)


def test_a_prefix_ends_with_u() -> None:
    with pytest.raises(LocalProtocolError):
        KeyPair.fresh(bytes(33))


def test_keys_differ() -> None:
    assert len({KeyPair.fresh().encoded for _ in range(10)}) == 10
