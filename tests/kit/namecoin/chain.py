"""A regtest chain: the recorded blocks, and more that tests mine on top of them.

Mined blocks are merge-mined at regtest difficulty (`mining`).  Name operations carry the
scripts and version that Namecoin uses, spend outputs that exist, and are not signed:
Electrum servers index, they do not validate.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isoproxy.namecoin.chain.name_script import NAME_TX_VERSION, push
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.chain.transaction import double_sha256, read_compact_size
from tests.kit.namecoin.at_once import read_header, read_transaction
from tests.kit.namecoin.compact_size import write_compact_size
from tests.kit.namecoin.mining import (
    ADDRESS_SCRIPT,
    AUXPOW_VERSION,
    NULL_OUTPOINT,
    MergeMining,
    header_bytes,
    serialise,
)
from tests.kit.repository import DATA

RECORDED = DATA / "namecoin-regtest"
SPARE_OUTPUTS = 64


@dataclass(frozen=True)
class Block:
    """A whole block; hashes and ids as hex in display order, headers with AuxPoW."""

    raw: bytes
    header: bytes
    block_hash: str
    transactions: dict[str, bytes]

    @classmethod
    def parse(cls, raw: bytes) -> Block:
        mined, offset = read_header(raw)
        header = raw[:offset]
        count, offset = read_compact_size(raw, offset)
        transactions = {}
        for _ in range(count):
            transaction = read_transaction(raw, offset)
            transactions[transaction.txid[::-1].hex()] = raw[offset : transaction.end]
            offset = transaction.end
        return cls(raw, header, mined.header.block_hash[::-1].hex(), transactions)

    @property
    def time(self) -> int:
        return int.from_bytes(self.header[68:72], "little")


@dataclass(frozen=True)
class NameOutput:
    """What a mined name operation left behind: its outpoint, name and value."""

    outpoint: bytes
    value: bytes
    height: int
    txid: str


@dataclass
class Unspent:
    """Outputs that mined transactions may spend, after some block."""

    spare: list[bytes] = field(default_factory=list)
    names: dict[bytes, NameOutput] = field(default_factory=dict)

    def copy(self) -> Unspent:
        return Unspent(list(self.spare), dict(self.names))


def name_script(op: int, *arguments: bytes) -> bytes:
    """A name operation's prefix: `op` is 1, 2 or 3; drops as Namecoin writes them."""
    drops = {1: b"\x6d", 2: b"\x6d\x6d", 3: b"\x6d\x75"}[op]
    pushes = b"".join(push(argument) if argument else b"\x00" for argument in arguments)
    return bytes([0x50 + op]) + pushes + drops


def merkle_tree(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """The levels of the tree over `leaves`, from the leaves to the root."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        if len(level) % 2:
            level = [*level, level[-1]]
        levels.append([double_sha256(a + b) for a, b in zip(level[::2], level[1::2], strict=True)])
    return levels


def merkle_branch(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings on the way from leaf `index` to the root."""
    branch = []
    for level in merkle_tree(leaves)[:-1]:
        branch.append(level[min(index ^ 1, len(level) - 1)])
        index >>= 1
    return branch


class RegtestChain:
    """A chain that grows; `blocks` by height, stale ones stay known by hash."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)
        self.by_hash = {block.block_hash: block for block in blocks}
        self.transactions: dict[str, bytes] = {}
        for block in blocks:
            self.transactions.update(block.transactions)
        self._unspent_at = {self.tip: Unspent()}
        self._salt = 0

    @classmethod
    def recorded(cls, directory: Path = RECORDED) -> RegtestChain:
        """The chain that Namecoin Core mined for this project."""
        lines = (directory / "blocks.hex").read_text().split()
        return cls([Block.parse(bytes.fromhex(line)) for line in lines])

    @property
    def tip(self) -> int:
        return len(self.blocks) - 1

    def headers(self) -> list[bytes]:
        """The full headers by height."""
        return [block.header for block in self.blocks]

    @property
    def _unspent(self) -> Unspent:
        return self._unspent_at[self.tip]

    def _coinbase(self, height: int) -> bytes:
        self._salt += 1
        script = push(struct.pack("<I", height)) + push(struct.pack("<I", self._salt))
        outputs = [(1_000_000, ADDRESS_SCRIPT)] * SPARE_OUTPUTS
        return serialise(1, [(NULL_OUTPOINT, script)], outputs)

    def mine(self, transactions: Sequence[bytes] = (), *, spacing: int = 1) -> Block:
        """Put one block with `transactions` on top; returns it."""
        before, height = self.blocks[-1], self.tip + 1
        all_transactions = [self._coinbase(height), *transactions]
        txids = [read_transaction(raw).txid for raw in all_transactions]
        header = header_bytes(
            AUXPOW_VERSION,
            bytes.fromhex(before.block_hash)[::-1],
            merkle_tree(txids)[-1][0],
            before.time + spacing,
            nonce=self._salt,
        )
        raw = MergeMining().mine(header) + write_compact_size(len(all_transactions))
        block = Block.parse(raw + b"".join(all_transactions))
        after = self._unspent.copy()
        after.spare += [txids[0] + struct.pack("<I", at) for at in range(1, SPARE_OUTPUTS)]
        self.blocks.append(block)
        self.by_hash[block.block_hash] = block
        self.transactions.update(block.transactions)
        self._unspent_at[height] = after
        return block

    def mine_empty(self, count: int) -> None:
        """Put `count` blocks without names on top."""
        for _ in range(count):
            self.mine()

    def update(self, name: bytes, value: bytes) -> NameOutput:
        """Mine a block in which `name` gets `value`: registered, or updated if it was."""
        return self.update_all({name: value})[name]

    def update_all(self, values: Mapping[bytes, bytes]) -> dict[bytes, NameOutput]:
        """Mine a block in which all these names get their values."""
        while len(self._unspent.spare) < len(values):
            self.mine()
        made = {name: self._name_transaction(name, value) for name, value in values.items()}
        self.mine(list(made.values()))
        outputs = {}
        for name, raw in made.items():
            txid = read_transaction(raw).txid
            outputs[name] = NameOutput(txid + bytes(4), values[name], self.tip, txid[::-1].hex())
        self._unspent.names.update(outputs)
        return outputs

    def _name_transaction(self, name: bytes, value: bytes) -> bytes:
        unspent = self._unspent
        known = unspent.names.get(name)
        inputs = [(unspent.spare.pop(), b"")]
        if known is None:
            script = name_script(2, name, b"\x01" * 20, value)
        else:
            inputs.append((known.outpoint, b""))
            script = name_script(3, name, value)
        return serialise(NAME_TX_VERSION, inputs, [(1_000_000, script + ADDRESS_SCRIPT)])

    def rewind(self, height: int) -> None:
        """Forget the blocks above `height`, which must have been mined or be recorded."""
        del self.blocks[height + 1 :]
        self._unspent_at.setdefault(height, Unspent())


EXPIRY = REGTEST.expiry
RECORDED_TIP = 168


def recorded_answers() -> dict[str, dict[str, object]]:
    """All of Namecoin Core's answers at the recorded tip, by name."""
    answers: dict[str, dict[str, object]] = json.loads((RECORDED / "name_show.json").read_text())
    return answers
