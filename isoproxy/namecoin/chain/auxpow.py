"""Namecoin block headers and their merge-mined proof of work.

Theory of operation
    A header is 80 bytes.  With bit 0x100 of the version set, an *AuxPoW* follows: a
    coinbase transaction of another chain (the parent), its Merkle branch to the parent
    block's root, the branch from our block's hash to a root that the coinbase carries,
    and the parent's header.  The parent's hash meets our target, so the work done there
    counts here.  Layout:

        80 header | parent coinbase | 32 ignored | coinbase branch | int32 index
        | chain branch | int32 index | 80 parent header

    `read_header` parses one, `series` a concatenation; `check_proof_of_work` applies the
    fourteen rules of merged mining, numbered as in `HeaderRejected.rule`:

     1 version 1 only below the legacy height    8 parent has not our chain id (strict)
     2 chain id is ours (strict networks)        9 chain branch of at most 30 levels
     3 flag and AuxPoW agree; not too early     10 coinbase is under the parent's root
     4 no AuxPoW: own hash meets the target     11 chain root is in the coinbase's script
     5 parent is not itself merge-mined         12 one marker, the root right behind it;
     6 parent's hash meets our target              no marker: root within 20 bytes
     7 coinbase index is 0                      13 tree size and nonce follow the root
                                                14 our slot is the one the nonce gives

Invariants
    A header of a few hundred bytes costs 50 µs; one with millions of items in its proof,
    which the rules of Namecoin allow, half a second.  So what a remote peer decides
    the cost of is done in `Cooperative`.  No byte is read twice.

Specification: "Merged mining specification" (Bitcoin wiki); Namecoin Core's `auxpow.cpp`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.namecoin.chain.cooperative import Cooperative
from isoproxy.namecoin.chain.merkle import HASH_LENGTH, MAX_BRANCH, fold
from isoproxy.namecoin.chain.params import CHAIN_ID, ChainParams
from isoproxy.namecoin.chain.transaction import (
    MAX_STRIPPED,
    Transaction,
    Truncated,
    double_sha256,
    read_compact_size,
    read_transaction,
)

HEADER_LENGTH: Final = 80
AUXPOW_FLAG: Final = 0x100
MAX_HEADER: Final = 4_000_000
"""Bytes; the limit of a block's weight, in which a header counts with its proof.  The witness
of the parent's coinbase is covered by no hash: whoever passes a block on can add to it."""
MERGED_MINING_MARKER: Final = b"\xfa\xbe\x6d\x6d"
_MAX_UNMARKED_OFFSET: Final = 20
_BYTES_AT_ONCE: Final = 1 << 15
"""Of ordinary headers; a millisecond or two."""
_LEVELS_AT_ONCE: Final = 1000
"""Of the coinbase's branch, which no rule bounds; a millisecond of hashing."""

_LAYOUT: Final = struct.Struct("<I32s32sIII")
_INDEX: Final = struct.Struct("<I")
_SIZE_AND_NONCE: Final = struct.Struct("<II")


class HeaderRejected(RemoteProtocolError):
    """A header breaks rule number `rule` (1-14, or 0 for rules of its place in the chain)."""

    def __init__(self, rule: int, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Header:
    """The 80 bytes that a block's hash covers; hashes in internal byte order."""

    raw: bytes
    block_hash: bytes
    version: int
    previous: bytes
    merkle_root: bytes
    time: int
    bits: int

    @classmethod
    def parse(cls, raw: bytes) -> Header:
        """The header that these 80 bytes are; raises RemoteProtocolError."""
        if len(raw) != HEADER_LENGTH:
            raise RemoteProtocolError("a block header does not have 80 bytes")
        version, previous, root, time, bits, _ = _LAYOUT.unpack(raw)
        return cls(raw, double_sha256(raw), version, previous, root, time, bits)

    @property
    def base_version(self) -> int:
        return self.version % 0x100

    @property
    def chain_id(self) -> int:
        return self.version >> 16

    @property
    def is_legacy(self) -> bool:
        return self.version == 1

    @property
    def has_auxpow_flag(self) -> bool:
        return bool(self.version & AUXPOW_FLAG)


@dataclass(frozen=True, slots=True)
class AuxPow:
    """The proof that a parent block was mined over ours."""

    coinbase: Transaction
    coinbase_branch: tuple[bytes, ...]
    coinbase_index: int
    chain_branch: tuple[bytes, ...]
    chain_index: int
    parent: Header


@dataclass(frozen=True, slots=True)
class MinedHeader:
    """A header with all that proves its work."""

    header: Header
    auxpow: AuxPow | None


def _read_branch(data: bytes, offset: int) -> tuple[tuple[bytes, ...], int, int]:
    """The hashes at `offset`, the index behind them, and the offset behind that."""
    count, start = read_compact_size(data, offset)
    end = start + HASH_LENGTH * count
    if end - start > MAX_STRIPPED:
        raise LimitExceeded("a Merkle branch is longer than a block can be")
    if end + 4 > len(data):
        raise Truncated(end + 4)
    branch = tuple(data[at : at + HASH_LENGTH] for at in range(start, end, HASH_LENGTH))
    return branch, _INDEX.unpack_from(data, end)[0], end + 4


def _read_auxpow(data: bytes, coinbase: Transaction) -> tuple[AuxPow, int]:
    """What follows `coinbase`, and the offset behind that."""
    coinbase_branch, coinbase_index, offset = _read_branch(data, coinbase.end + HASH_LENGTH)
    chain_branch, chain_index, offset = _read_branch(data, offset)
    end = offset + HEADER_LENGTH
    if end > len(data):
        raise Truncated(end)
    parent = Header.parse(data[offset:end])
    proof = AuxPow(coinbase, coinbase_branch, coinbase_index, chain_branch, chain_index, parent)
    return proof, end


def read_header(data: bytes, offset: int = 0) -> Cooperative[tuple[MinedHeader, int]]:
    """The header at `offset` of `data` and the offset behind it.

    Raises `Truncated` if it ends too early, RemoteProtocolError if it is malformed.
    """
    end = offset + HEADER_LENGTH
    if end > len(data):
        raise Truncated(end)
    header = Header.parse(data[offset:end])
    if not header.has_auxpow_flag:
        return MinedHeader(header, None), end
    coinbase = yield from read_transaction(data, end)
    auxpow, end = _read_auxpow(data, coinbase)
    return MinedHeader(header, auxpow), end


def series(blob: bytes) -> Iterator[MinedHeader | None]:
    """The headers that `blob` is a concatenation of, each when it is read.

    None comes in between whenever other work should have its turn.
    """
    offset, reported = 0, 0
    while offset < len(blob):
        start = offset
        try:
            mined, offset = yield from read_header(blob, offset)
        except Truncated:
            raise RemoteProtocolError("a series of headers ends in the middle of one") from None
        if offset - start > MAX_HEADER:
            raise LimitExceeded("a block header is longer than a block can be")
        yield mined
        if offset - reported > _BYTES_AT_ONCE:
            reported = offset
            yield None


@lru_cache(maxsize=256)
def target_of(bits: int) -> int:
    """The 256-bit target of the compact form `bits`; 0 if it is negative or too large."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    if bits & 0x800000 and mantissa:
        return 0
    target = mantissa >> 8 * (3 - exponent) if exponent < 3 else mantissa << 8 * (exponent - 3)
    return 0 if target >> 256 else target


def bits_of(target: int) -> int:
    """The compact form of `target`, rounded down as Bitcoin does."""
    size = (target.bit_length() + 7) // 8
    mantissa = target << 8 * (3 - size) if size <= 3 else target >> 8 * (size - 3)
    if mantissa & 0x800000:
        mantissa >>= 8
        size += 1
    return size << 24 | mantissa


def meets_target(block_hash: bytes, bits: int, network: ChainParams) -> bool:
    """True if the hash is within the target, and the target within the network's limit."""
    target = target_of(bits)
    return 0 < target <= network.pow_limit and int.from_bytes(block_hash, "little") <= target


def expected_slot(nonce: int, height: int) -> int:
    """The place of our chain in a merged-mining tree of `height` levels."""
    slot = nonce
    slot = slot * 1103515245 + 12345
    slot += CHAIN_ID
    slot = slot * 1103515245 + 12345
    return slot % (1 << height)


def _check_version(mined: MinedHeader, height: int, network: ChainParams) -> None:
    header = mined.header
    if header.is_legacy:
        if network.legacy_before is not None and height >= network.legacy_before:
            raise HeaderRejected(1, "a legacy header where none is allowed any more")
    elif network.strict_chain_id and header.chain_id != CHAIN_ID:
        raise HeaderRejected(2, "a header of another chain")
    if header.has_auxpow_flag != (mined.auxpow is not None):
        raise HeaderRejected(3, "a header's merged-mining flag and its contents differ")
    if mined.auxpow is not None and height < network.auxpow_from:
        raise HeaderRejected(3, "a merge-mined header before merged mining began")


def _check_parent(auxpow: AuxPow, bits: int, network: ChainParams) -> None:
    parent = auxpow.parent
    if parent.has_auxpow_flag:
        raise HeaderRejected(5, "the parent block is itself merge-mined")
    if not meets_target(parent.block_hash, bits, network):
        raise HeaderRejected(6, "the parent block's work is too little")
    if auxpow.coinbase_index != 0:
        raise HeaderRejected(7, "the parent transaction is not a coinbase")
    if network.strict_chain_id and parent.chain_id == CHAIN_ID:
        raise HeaderRejected(8, "the parent block is of our own chain")
    if len(auxpow.chain_branch) > MAX_BRANCH:
        raise HeaderRejected(9, "the merged-mining branch is too long")


def _check_commitment(auxpow: AuxPow, block_hash: bytes) -> None:
    root = fold(block_hash, auxpow.chain_branch, auxpow.chain_index)[::-1]
    script = auxpow.coinbase.inputs[0].script if auxpow.coinbase.inputs else b""
    at = script.find(root)
    if at < 0:
        raise HeaderRejected(11, "the parent's coinbase does not commit to the block")
    marker = script.find(MERGED_MINING_MARKER)
    if marker >= 0:
        if script.find(MERGED_MINING_MARKER, marker + 1) >= 0:
            raise HeaderRejected(12, "the parent's coinbase has several markers")
        if marker + len(MERGED_MINING_MARKER) != at:
            raise HeaderRejected(12, "the commitment does not follow its marker")
    elif at > _MAX_UNMARKED_OFFSET:
        raise HeaderRejected(12, "the commitment begins too late in the coinbase")
    behind = at + HASH_LENGTH
    if len(script) - behind < _SIZE_AND_NONCE.size:
        raise HeaderRejected(13, "the size and nonce of the merged-mining tree are missing")
    size, nonce = _SIZE_AND_NONCE.unpack_from(script, behind)
    levels = len(auxpow.chain_branch)
    if size != 1 << levels:
        raise HeaderRejected(13, "the size of the merged-mining tree is wrong")
    if auxpow.chain_index != expected_slot(nonce, levels):
        raise HeaderRejected(14, "the block is not in its slot of the merged-mining tree")


def check_proof_of_work(mined: MinedHeader, height: int, network: ChainParams) -> Cooperative[None]:
    """All that can be said of a header at `height` without its neighbours.

    Whether its `bits` are the right ones is for `chain`.  Raises HeaderRejected.
    """
    _check_version(mined, height, network)
    header = mined.header
    if mined.auxpow is None:
        if not meets_target(header.block_hash, header.bits, network):
            raise HeaderRejected(4, "the block's work is too little")
        return
    auxpow = mined.auxpow
    _check_parent(auxpow, header.bits, network)
    root, branch = auxpow.coinbase.txid, auxpow.coinbase_branch
    for at in range(0, len(branch), _LEVELS_AT_ONCE):
        if at:
            yield
        root = fold(root, branch[at : at + _LEVELS_AT_ONCE], 0)
    if root != auxpow.parent.merkle_root:
        raise HeaderRejected(10, "the coinbase is not in the parent block")
    _check_commitment(auxpow, header.block_hash)
