from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.transaction import (
    MAX_COMPACT_SIZE,
    Truncated,
    double_sha256,
    is_transaction,
    read_compact_size,
)
from tests.kit.namecoin.at_once import parse_transaction, read_transaction
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.compact_size import write_compact_size
from tests.kit.namecoin.mining import NULL_OUTPOINT, serialise

SIMPLE = serialise(1, [(NULL_OUTPOINT, b"in")], [(5, b"out"), (-1 & 0xFF, b"")])


@given(st.integers(0, MAX_COMPACT_SIZE))
def test_compact_sizes_come_back(value: int) -> None:
    raw = write_compact_size(value)
    assert read_compact_size(b"x" + raw + b"y", 1) == (value, 1 + len(raw))


@pytest.mark.parametrize(
    "raw", [b"\xfd\xfc\x00", b"\xfe\xff\xff\x00\x00", b"\xff" + b"\xff" * 4 + bytes(4)]
)
def test_a_compact_size_in_a_longer_form_than_needed_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="shortest"):
        read_compact_size(raw, 0)


def test_a_compact_size_beyond_the_protocols_limit_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="larger"):
        read_compact_size(b"\xff" + (1 << 40).to_bytes(8, "little"), 0)


def test_recorded_transactions_have_the_ids_that_their_blocks_commit_to() -> None:
    chain = RegtestChain.recorded()
    for txid, raw in chain.transactions.items():
        assert parse_transaction(raw).txid[::-1].hex() == txid


def test_the_id_leaves_out_the_witness() -> None:
    plain = serialise(2, [(NULL_OUTPOINT, b"x")], [(1, b"y")])
    segregated = serialise(2, [(NULL_OUTPOINT, b"x")], [(1, b"y")], [[b"w", b"\x00" * 300]])
    assert parse_transaction(segregated).txid == parse_transaction(plain).txid
    assert parse_transaction(plain).txid == double_sha256(plain)


def test_a_transaction_without_outputs_is_read() -> None:
    raw = serialise(1, [(NULL_OUTPOINT, b"x")], [])
    assert parse_transaction(raw).outputs == ()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (serialise(2, [(NULL_OUTPOINT, b"x")], [], [[]]), "superfluous"),
        (b"\x01\0\0\0\x00\x02" + SIMPLE[4:], "unknown kind"),
        (SIMPLE + b"\x00", "behind its end"),
    ],
)
def test_what_bitcoin_core_refuses_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(RemoteProtocolError, match=says):
        parse_transaction(raw)
    assert not is_transaction(raw)


@pytest.mark.parametrize("raw", [SIMPLE, serialise(2, [(NULL_OUTPOINT, b"x")], [], [[b"w"]])])
def test_cut_off_at_any_byte_it_asks_for_more_and_never_too_much(raw: bytes) -> None:
    for length in range(len(raw)):
        with pytest.raises(Truncated) as short:
            read_transaction(raw[:length])
        assert length < short.value.need <= len(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_transaction_or_a_clear_error(raw: bytes) -> None:
    try:
        transaction = read_transaction(raw)
    except RemoteProtocolError:
        return
    assert transaction.end <= len(raw)


def test_a_count_of_millions_costs_nothing() -> None:
    with pytest.raises(Truncated):
        read_transaction(b"\x01\0\0\0" + write_compact_size(MAX_COMPACT_SIZE) + bytes(100))
