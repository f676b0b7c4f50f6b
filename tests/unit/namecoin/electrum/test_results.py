from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.merkle import MAX_BRANCH
from isoproxy.namecoin.electrum import results
from isoproxy.namecoin.electrum.results import HistoryItem

HASH = "00" * 31 + "01"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["height", "hex", "tx_hash", "merkle", "pos", "count", "tx", "tx_merkle", "header"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_an_answer_or_a_clear_error(value: Any) -> None:
    for read in (
        results.server_version,
        results.genesis_hash,
        results.history,
        results.checkpoint_proof,
        lambda v: results.tip_claim(v, 1000),
        lambda v: results.header_blob(v, 1000),
        lambda v: results.value_proof({"k": v}, "k"),
        lambda v: results.name_proof(5, v, v),
        lambda v: results.hex_bytes(v, 10),
    ):
        try:
            read(value)
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize("value", ["0", "zz", "00 11", "é", "00" * 11, 7, None, ["00"]])
def test_what_is_no_plain_hexadecimal_is_refused(value: object) -> None:
    with pytest.raises(RemoteProtocolError):
        results.hex_bytes(value, 10)


def test_hashes_are_reversed_and_whole() -> None:
    assert results.hash_bytes(HASH) == b"\x01" + bytes(31)
    with pytest.raises(RemoteProtocolError):
        results.hash_bytes("00" * 31)


@pytest.mark.parametrize("height", [True, 1.0, "1", -2, 1 << 31, None])
def test_what_is_no_height_is_refused(height: object) -> None:
    with pytest.raises(RemoteProtocolError):
        results.history([{"height": height, "tx_hash": HASH}])


def test_a_history_is_newest_first_and_leaves_out_what_is_in_no_block() -> None:
    value = [{"height": at, "tx_hash": HASH} for at in (3, 5, 0, -1)]
    txid = b"\x01" + bytes(31)
    assert results.history(value) == [HistoryItem(5, txid), HistoryItem(3, txid)]


def test_a_tip_has_at_least_a_header() -> None:
    with pytest.raises(RemoteProtocolError, match="short"):
        results.tip_claim({"height": 1, "hex": "00" * 79}, 1000)
    assert results.tip_claim({"height": 1, "hex": "00" * 80}, 1000).height == 1


def test_a_branch_has_a_bounded_length() -> None:
    merkle = {"merkle": [HASH] * MAX_BRANCH, "pos": 0}
    assert len(results.name_proof(1, "00", merkle).branch) == MAX_BRANCH
    with pytest.raises(RemoteProtocolError):
        results.name_proof(1, "00", merkle | {"merkle": [HASH] * (MAX_BRANCH + 1)})


def test_a_branch_of_another_block_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="another block"):
        results.name_proof(1, "00", {"merkle": [], "pos": 0, "block_height": 2})


def test_a_value_proof_of_another_name_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        results.value_proof({"other": []}, "mine")
    assert results.value_proof({"mine": []}, "mine") == []


@pytest.mark.parametrize(
    ("heights", "count"),
    [([], 0), ([100], 1), ([89], 1), ([100, 95, 89, 80], 3), ([90, 90], 2), ([89, 89], 1)],
)
def test_the_entries_down_to_the_first_that_is_deep_enough(heights: list[int], count: int) -> None:
    items = [HistoryItem(height, bytes(32)) for height in heights]
    assert results.count_down_to(items, 89) == count


def test_a_history_in_any_order_is_read_newest_first_and_each_entry_once() -> None:
    entries = [{"height": h, "tx_hash": f"{h:064x}"} for h in (5, 7, 6, 7, 0, -1)]
    assert [item.height for item in results.history(entries)] == [7, 6, 5]
