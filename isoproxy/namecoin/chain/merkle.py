"""Merkle branches: that a leaf lies under a root, at a position.

Theory of operation
    Bitcoin's tree: a node is the double SHA-256 of its two children; an odd level
    repeats its last node.  A branch lists the siblings from the leaf upwards; bit i of
    the position says on which side the path runs at level i.

    The repeated node gives what is below it a second position, further right, that leads
    to the same root (CVE-2012-2459).  A fold over transactions refuses it: positions say
    which of two updates in one block is the later.

    The tree does not mark leaves.  Whoever gets a transaction of exactly 64 bytes into a
    block can pass it off as an inner node whose right half is the id of a transaction
    that was never mined.  So a fold over transactions refuses inner nodes that can be
    read as a transaction.

    Checkpoints use the same tree over the block hashes of heights 0...cp (the Electrum
    protocol's `cp_height`); its branch length is fixed by cp.

Invariants
    Every bit of the position must be used up by the branch: one leaf, one position.

Specification: Electrum protocol 1.4, `blockchain.transaction.get_merkle` and
`blockchain.block.header`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.transaction import double_sha256, is_transaction


class Ambiguous(RemoteProtocolError):
    """A branch is a block's own, maybe, and proves nothing all the same.

    Who gets two transactions of his own into a block side by side can make their node read
    as a transaction, for a second of computing: it is no proof that a server lies.
    """


MAX_BRANCH: Final = 30
"""Levels; a block with 2**30 transactions cannot exist."""
HASH_LENGTH: Final = 32


def fold(leaf: bytes, branch: Sequence[bytes], position: int) -> bytes:
    """The root that `branch` leads to from `leaf` at `position`; 32-byte hashes."""
    node = leaf
    for sibling in branch:
        node = double_sha256(sibling + node if position & 1 else node + sibling)
        position >>= 1
    return node


def transaction_root(txid: bytes, branch: Sequence[bytes], position: int) -> bytes:
    """The block's Merkle root for the transaction `txid` (internal byte order).

    Raises RemoteProtocolError for a branch that proves nothing: too long, a position
    outside of the tree, one of a repeated node, an inner node that could be a transaction.
    """
    if len(branch) > MAX_BRANCH:
        raise RemoteProtocolError("a Merkle branch is longer than a block can have")
    if position < 0 or position >> len(branch):
        raise RemoteProtocolError("a position lies outside of its Merkle tree")
    node = txid
    for sibling in branch:
        if len(sibling) != HASH_LENGTH:
            raise RemoteProtocolError("a Merkle branch holds something that is not a hash")
        if position & 1 and sibling == node:
            raise RemoteProtocolError("a position is that of a repeated Merkle node")
        inner = sibling + node if position & 1 else node + sibling
        if is_transaction(inner):
            raise Ambiguous("an inner node of a Merkle branch is a transaction")
        node = double_sha256(inner)
        position >>= 1
    return node


def checkpoint_root(
    block_hash: bytes, branch: Sequence[bytes], height: int, checkpoint: int
) -> bytes:
    """The root over the hashes of heights 0...`checkpoint` that `branch` leads to."""
    if not 0 <= height <= checkpoint:
        raise RemoteProtocolError("a height lies above the checkpoint")
    if len(branch) != checkpoint.bit_length():
        raise RemoteProtocolError("a checkpoint branch does not have the length of its tree")
    if any(len(sibling) != HASH_LENGTH for sibling in branch):
        raise RemoteProtocolError("a checkpoint branch holds something that is not a hash")
    return fold(block_hash, branch, height)
