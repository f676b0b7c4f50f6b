from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.merkle import MAX_BRANCH, checkpoint_root, fold, transaction_root
from isoproxy.namecoin.chain.transaction import double_sha256
from tests.kit.namecoin.chain import RegtestChain, merkle_branch, merkle_tree
from tests.kit.namecoin.mining import serialise

hashes = st.binary(min_size=32, max_size=32)


@given(st.lists(hashes, min_size=1, max_size=40, unique=True), st.data())
def test_every_leaf_folds_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    branch = merkle_branch(leaves, index)
    assert transaction_root(leaves[index], branch, index) == merkle_tree(leaves)[-1][0]


@given(st.lists(hashes, min_size=2, max_size=20, unique=True), st.data())
def test_another_leaf_or_place_leads_elsewhere(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    branch = merkle_branch(leaves, index)
    root = merkle_tree(leaves)[-1][0]
    assert transaction_root(double_sha256(leaves[index]), branch, index) != root
    assert fold(leaves[index], branch, index ^ 1) != root or len(leaves) % 2


@given(st.lists(hashes, min_size=1, max_size=40, unique=True), st.data())
def test_a_transaction_has_one_position(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    branch = merkle_branch(leaves, index)
    root = merkle_tree(leaves)[-1][0]
    places = [at for at in range(1 << len(branch)) if fold(leaves[index], branch, at) == root]
    assert places[0] == index
    for other in places[1:]:
        with pytest.raises(RemoteProtocolError, match="repeated"):
            transaction_root(leaves[index], branch, other)


def test_a_position_with_bits_left_over_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="outside"):
        transaction_root(bytes(32), [bytes(32)], 2)


def test_a_branch_that_is_too_long_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="longer"):
        transaction_root(bytes(32), [bytes(32)] * (MAX_BRANCH + 1), 0)


def test_a_sibling_of_another_size_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not a hash"):
        transaction_root(bytes(32), [bytes(33)], 0)


def test_a_mined_64_byte_transaction_does_not_vouch_for_a_forged_one() -> None:
    # The right half of a 64-byte transaction is read as the id of another one.
    bait = serialise(1, [(bytes(36), b"")], [(0, bytes(4))])
    assert len(bait) == 64
    forged = bait[32:]
    root = double_sha256(bait)
    assert fold(forged, [bait[:32]], 1) == root
    with pytest.raises(RemoteProtocolError, match="inner node"):
        transaction_root(forged, [bait[:32]], 1)


def test_headers_fold_to_a_checkpoints_root() -> None:
    headers = RegtestChain.recorded().headers()
    checkpoint = 5
    leaves = [double_sha256(header[:80]) for header in headers[: checkpoint + 1]]
    root = merkle_tree(leaves)[-1][0]
    for height in range(checkpoint + 1):
        branch = merkle_branch(leaves, height)
        assert checkpoint_root(leaves[height], branch, height, checkpoint) == root


@pytest.mark.parametrize(("height", "length"), [(6, 3), (-1, 3), (3, 2), (3, 4)])
def test_a_checkpoint_proof_of_another_shape_is_refused(height: int, length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        checkpoint_root(bytes(32), [bytes(32)] * length, height, 5)


def test_a_checkpoint_sibling_of_another_size_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not a hash"):
        checkpoint_root(bytes(32), [bytes(32), b"", bytes(32)], 3, 5)
