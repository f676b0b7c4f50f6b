"""Merge mining at test difficulty, with every part of the proof open to be got wrong.

`MergeMining().mine(header)` gives a full header that all fourteen checks accept.  Each
field changes one thing about it; the work is done after that, so that exactly the check
in question is what fails.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from isoproxy.namecoin.chain.auxpow import MERGED_MINING_MARKER, expected_slot, target_of
from isoproxy.namecoin.chain.merkle import fold
from isoproxy.namecoin.chain.transaction import double_sha256
from tests.kit.namecoin.at_once import read_transaction
from tests.kit.namecoin.compact_size import write_compact_size

BITS = 0x207FFFFF
AUXPOW_VERSION = 0x00010104
PLAIN_VERSION = 0x00010004
PARENT_VERSION = 0x20000000
ADDRESS_SCRIPT = bytes.fromhex("76a914") + b"\x11" * 20 + bytes.fromhex("88ac")
NULL_OUTPOINT = bytes(32) + b"\xff" * 4


def serialise(
    version: int,
    inputs: Sequence[tuple[bytes, bytes]],
    outputs: Sequence[tuple[int, bytes]],
    witness: Sequence[Sequence[bytes]] | None = None,
) -> bytes:
    """A transaction from (outpoint, script) and (value, script) pairs.

    With `witness`, a stack per input, it has the segregated form.
    """
    parts = [version.to_bytes(4, "little")]
    if witness is not None:
        parts.append(b"\x00\x01")
    parts.append(write_compact_size(len(inputs)))
    for outpoint, script in inputs:
        parts += [outpoint, write_compact_size(len(script)), script, b"\xff\xff\xff\xff"]
    parts.append(write_compact_size(len(outputs)))
    for value, script in outputs:
        parts += [value.to_bytes(8, "little"), write_compact_size(len(script)), script]
    for stack in witness or ():
        parts.append(write_compact_size(len(stack)))
        for item in stack:
            parts += [write_compact_size(len(item)), item]
    return b"".join([*parts, bytes(4)])


def header_bytes(
    version: int,
    previous: bytes,
    merkle_root: bytes,
    time: int,
    bits: int = BITS,
    nonce: int = 0,
) -> bytes:
    """The 80 bytes of a header; hashes in internal byte order."""
    return struct.pack("<I32s32sIII", version, previous, merkle_root, time, bits, nonce)


def meets(block_hash: bytes, bits: int) -> bool:
    """True if the hash is within the compact target."""
    return int.from_bytes(block_hash, "little") <= target_of(bits)


def mine_plain(header: bytes, *, enough: bool = True) -> bytes:
    """`header` with a nonce that meets its own target, or misses it."""
    bits = int.from_bytes(header[72:76], "little")
    nonce = 0
    while meets(double_sha256(mined := header[:76] + struct.pack("<I", nonce)), bits) != enough:
        nonce += 1
    return mined


@dataclass(frozen=True)
class MergeMining:
    """How a header is merge-mined; see the module's text.

    `branch` are the siblings of our chain in the merged-mining tree, `coinbase_branch`
    those of the coinbase in the parent block.  `slot` None is the right one.  `before`
    and `after` are put around the commitment in the coinbase's script.
    """

    branch: Sequence[bytes] = ()
    coinbase_branch: Sequence[bytes] = ()
    coinbase_index: int = 0
    slot: int | None = None
    nonce: int = 7
    marker: bytes = MERGED_MINING_MARKER
    before: bytes = b"\x04abcd"
    after: bytes | None = None
    tree_size: int | None = None
    commit: bool = True
    parent_version: int = PARENT_VERSION
    parent_root: bytes | None = None
    enough: bool = True
    outputs: int = 1
    witness: bool = False
    inputs: bool = True

    def mine(self, header: bytes) -> bytes:
        """`header` (80 bytes) with its proof behind it."""
        levels = len(self.branch)
        slot = expected_slot(self.nonce, min(levels, 30)) if self.slot is None else self.slot
        root = fold(double_sha256(header), self.branch, slot)[::-1]
        size = 1 << levels if self.tree_size is None else self.tree_size
        after = struct.pack("<II", size, self.nonce) if self.after is None else self.after
        script = self.before + self.marker + (root if self.commit else bytes(32)) + after
        coinbase = serialise(
            2,
            [(NULL_OUTPOINT, script)] if self.inputs else [],
            [(5_000_000_000, ADDRESS_SCRIPT)] * self.outputs,
            [[bytes(32)]] if self.witness else None,
        )
        merkle_root = self.parent_root
        if merkle_root is None:
            txid = read_transaction(coinbase).txid
            merkle_root = fold(txid, self.coinbase_branch, 0)
        time, bits = (int.from_bytes(header[at : at + 4], "little") for at in (68, 72))
        parent = header_bytes(self.parent_version, bytes(32), merkle_root, time, bits)
        return b"".join(
            [
                header,
                coinbase,
                bytes(32),
                _branch(self.coinbase_branch, self.coinbase_index),
                _branch(self.branch, slot),
                mine_plain(parent, enough=self.enough),
            ]
        )


def _branch(hashes: Sequence[bytes], index: int) -> bytes:
    return write_compact_size(len(hashes)) + b"".join(hashes) + struct.pack("<I", index)
