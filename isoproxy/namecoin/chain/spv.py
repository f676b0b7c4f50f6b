"""What a server's answer about a name proves against our own header chain.

Theory of operation
    A server's *proof* of an operation is a height, a raw transaction and a Merkle
    branch.  `verify` turns it into an `Operation`, or rejects it: the transaction is an
    update of exactly this name, it lies in the block of that height, and that block is
    in our chain (or under a checkpoint we were given).  No word of the server is taken.

    `judge` then reads the verified operations of one server as Namecoin would, newest
    first.  The answer is the newest operation that is unexpired and has enough
    confirmations: the *survivor*.  Younger operations above it are skipped, whatever
    their number; only when nothing survives is a reason given, the most hopeful one that
    the proofs support: unconfirmed, else expired, else never registered.

    Expiry counts from the height of our verified tip only.  A server cannot expire a
    name by claiming a taller chain, nor keep it alive by hiding one that we know.

What it proves
    That the value was put into the chain, by whom work says is its owner, that many
    blocks ago.  That it is the *newest* value, or that there is none, cannot be proven
    by any one server: `combine` takes the newest of several.

Specification: simplified payment verification (Bitcoin's paper, §8); expiry as in Namecoin Core's
`names/common.cpp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from isoproxy.errors import ErrorKind, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import Header
from isoproxy.namecoin.chain.cooperative import Cooperative
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.merkle import checkpoint_root, transaction_root
from isoproxy.namecoin.chain.name_script import NameUpdate, NotAnUpdate, name_update
from isoproxy.namecoin.chain.params import Checkpoint

DEFAULT_CONFIRMATIONS: Final = 12
MAX_OPERATIONS: Final = 64
"""Proofs looked at per answer; the newest come first, so the survivor is among them."""


class HeaderMissing(RemoteProtocolError):
    """The header that a proof needs is not in the chain yet; `height` says which."""

    def __init__(self, height: int) -> None:
        super().__init__("the header for a proof has not been synchronised yet")
        self.height = height


class NotInBlock(RemoteProtocolError):
    """A Merkle branch does not lead to the root of our header at that height.

    Above the confirmation depth this also happens to an honest server, while two blocks
    compete for one height.
    """


@dataclass(frozen=True, slots=True)
class CheckpointProof:
    """A header below a checkpoint and its branch to the checkpoint's root."""

    header: bytes
    branch: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NameProof:
    """A server's claim that `transaction` is in the block at `height`.

    `branch` holds 32-byte hashes in internal byte order, `position` is the transaction's
    index in the block.
    """

    height: int
    transaction: bytes
    branch: tuple[bytes, ...]
    position: int
    below_checkpoint: CheckpointProof | None = None

    def below(self, proof: CheckpointProof) -> NameProof:
        """The same claim with a header of its own."""
        return replace(self, below_checkpoint=proof)


@dataclass(frozen=True, slots=True)
class Operation:
    """A verified update of a name."""

    height: int
    position: int
    update: NameUpdate


@dataclass(frozen=True, slots=True)
class ProofVerdict:
    """One server's answer, verified: an operation, or the reason why there is none."""

    operation: Operation | None
    reason: ErrorKind = ErrorKind.NAME_ABSENT

    def or_expired(self) -> ProofVerdict:
        """This verdict, or expiry where it would say that there never was such a name."""
        if self.operation is None and self.reason is ErrorKind.NAME_ABSENT:
            return ProofVerdict(None, ErrorKind.NAME_EXPIRED)
        return self


def proven_merkle_root(
    chain: HeaderChain, height: int, checkpoint: Checkpoint | None, proof: CheckpointProof | None
) -> bytes:
    """The Merkle root of the block at `height`, from the chain or under the checkpoint.

    Raises HeaderMissing if neither has it.
    """
    if height in chain:
        return chain.merkle_root(height)
    if checkpoint is None or proof is None or height > checkpoint.height:
        raise HeaderMissing(height)
    header = Header.parse(proof.header)
    root = checkpoint_root(header.block_hash, proof.branch, height, checkpoint.height)
    if root != checkpoint.root:
        raise RemoteProtocolError("a header is not under the checkpoint")
    return header.merkle_root


def verify(
    chain: HeaderChain, name: bytes, proof: NameProof, checkpoint: Checkpoint | None = None
) -> Cooperative[Operation]:
    """The operation on `name` that `proof` proves.

    Raises HeaderMissing if the block is above our tip or below what we hold, NotAnUpdate if
    it proves another transaction, and RemoteProtocolError if the proof is wrong.
    """
    update: NameUpdate | NotAnUpdate
    try:
        update = yield from name_update(proof.transaction, name)
    except NotAnUpdate as other:
        update = other
    root = proven_merkle_root(chain, proof.height, checkpoint, proof.below_checkpoint)
    if transaction_root(update.txid, proof.branch, proof.position) != root:
        raise NotInBlock("a transaction is not in the block it is said to be in")
    if isinstance(update, NotAnUpdate):
        raise update
    return Operation(proof.height, proof.position, update)


def expires_in(height: int, chain: HeaderChain) -> int:
    """Blocks that an operation at `height` has to live; expired if not positive."""
    return height + chain.network.expiry - chain.tip_height


def judge(operations: Sequence[Operation], chain: HeaderChain, confirmations: int) -> ProofVerdict:
    """The survivor among verified operations, or why there is none."""
    reason = ErrorKind.NAME_ABSENT
    for operation in sorted(operations, key=lambda op: (op.height, op.position), reverse=True):
        if expires_in(operation.height, chain) <= 0:
            if reason is ErrorKind.NAME_ABSENT:
                reason = ErrorKind.NAME_EXPIRED
            break
        if chain.tip_height - operation.height + 1 >= confirmations:
            return ProofVerdict(operation)
        reason = ErrorKind.NAME_UNCONFIRMED
    return ProofVerdict(None, reason)


def combine(verdicts: Sequence[ProofVerdict]) -> ProofVerdict:
    """The newest of several servers' verified answers; absence only if none found anything.

    Operations that were verified against one chain cannot exclude each other: within a
    block the proven positions tell which came later.
    """
    found = [verdict.operation for verdict in verdicts if verdict.operation is not None]
    if found:
        return ProofVerdict(max(found, key=lambda op: (op.height, op.position)))
    reasons = {verdict.reason for verdict in verdicts}
    for reason in (ErrorKind.NAME_UNCONFIRMED, ErrorKind.NAME_EXPIRED):
        if reason in reasons:
            return ProofVerdict(None, reason)
    return ProofVerdict(None)
