"""Bitcoin-format transactions as Namecoin and its parent chains serialise them.

Theory of operation
    `read_transaction` reads one transaction at an offset of a byte string and says where
    it ends.  It follows Bitcoin Core's deserialiser: compact sizes must be canonical, an
    empty input list announces the segregated-witness form (BIP144), an unknown flag or a
    superfluous witness is an error.  The transaction id covers the form without witness.

    A transaction has a hundred bytes or four million: it is read in `Cooperative`.

Invariants
    * Nothing is allocated on the word of a count: each item is read before the next.
    * Input that merely ends too early raises `Truncated` with the number of bytes that
      must be there before it makes sense to look again; all else that is wrong raises
      `RemoteProtocolError`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.namecoin.chain.cooperative import Cooperative, finish

MAX_COMPACT_SIZE: Final = 0x02000000
"""Bitcoin Core's MAX_SIZE: no count or length on the wire is larger."""

MAX_STRIPPED: Final = 1_000_000
"""Bytes of a block, and so of a transaction, without its witness."""

_ITEMS_AT_ONCE: Final = 1000
"""Inputs or outputs read in one step; a millisecond or two."""
_WITNESS_ITEMS_AT_ONCE: Final = 10_000

T = TypeVar("T")


class Truncated(RemoteProtocolError):
    """The input ends inside an item; `need` is the total length to wait for, in bytes."""

    def __init__(self, need: int) -> None:
        super().__init__("the serialisation ends too early")
        self.need = need


def double_sha256(data: bytes) -> bytes:
    """SHA-256 of SHA-256: the hash of headers, transactions and Merkle nodes."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


_COMPACT_FORMS: Final = {
    0xFD: (struct.Struct("<H"), 0xFD),
    0xFE: (struct.Struct("<I"), 0x10000),
    0xFF: (struct.Struct("<Q"), 0x100000000),
}


def read_compact_size(data: bytes, offset: int) -> tuple[int, int]:
    """The compact size at `offset` and the offset behind it."""
    if offset >= len(data):
        raise Truncated(offset + 1)
    first = data[offset]
    if first < 0xFD:
        return first, offset + 1
    form, least = _COMPACT_FORMS[first]
    end = offset + 1 + form.size
    if end > len(data):
        raise Truncated(end)
    value: int = form.unpack_from(data, offset + 1)[0]
    if value < least:
        raise RemoteProtocolError("a length is not in its shortest form")
    if value > MAX_COMPACT_SIZE:
        raise RemoteProtocolError("a length is larger than the protocol allows")
    return value, end


@dataclass(frozen=True, slots=True)
class TxInput:
    """`prevout` is the 36 bytes of the output spent: transaction id, then index."""

    prevout: bytes
    script: bytes


@dataclass(frozen=True, slots=True)
class TxOutput:
    """`value` is in the smallest unit of the chain's money."""

    value: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction; `txid` is in internal byte order, `end` the offset behind it."""

    version: int
    inputs: tuple[TxInput, ...]
    outputs: tuple[TxOutput, ...]
    txid: bytes
    end: int


def _read_script(data: bytes, offset: int, follows: int) -> tuple[bytes, int]:
    """A length-prefixed script at `offset`, behind which `follows` bytes must be there."""
    length, start = read_compact_size(data, offset)
    end = start + length
    if end + follows > len(data):
        raise Truncated(end + follows)
    return data[start:end], end


def _read_input(data: bytes, offset: int) -> tuple[TxInput, int]:
    if offset + 41 > len(data):
        raise Truncated(offset + 41)
    script, end = _read_script(data, offset + 36, 4)
    return TxInput(data[offset : offset + 36], script), end + 4


def _read_output(data: bytes, offset: int) -> tuple[TxOutput, int]:
    if offset + 9 > len(data):
        raise Truncated(offset + 9)
    value = int.from_bytes(data[offset : offset + 8], "little", signed=True)
    script, end = _read_script(data, offset + 8, 0)
    return TxOutput(value, script), end


def _read_list(
    data: bytes, offset: int, item: Callable[[bytes, int], tuple[T, int]], limit: int
) -> Cooperative[tuple[tuple[T, ...], int]]:
    count, offset = read_compact_size(data, offset)
    items: list[T] = []
    while True:
        for _ in range(min(_ITEMS_AT_ONCE, count - len(items))):
            value, offset = item(data, offset)
            if offset > limit:
                raise LimitExceeded("a transaction is longer than a block can be")
            items.append(value)
        if len(items) == count:
            return tuple(items), offset
        yield


def _skip_items(data: bytes, offset: int, count: int) -> int:
    available = len(data)
    for _ in range(count):
        if offset < available and data[offset] < 0xFD:
            offset += 1 + data[offset]  # of millions of items nothing is looked at
            if offset > available:
                raise Truncated(offset)
        else:
            _, offset = _read_script(data, offset, 0)
    return offset


def _skip_witness(data: bytes, offset: int, inputs: int) -> Cooperative[int]:
    empty, seen = True, 0
    for _ in range(inputs):
        count, offset = read_compact_size(data, offset)
        empty = empty and not count
        seen += 1
        while count:
            part = min(_WITNESS_ITEMS_AT_ONCE, count)
            offset = _skip_items(data, offset, part)
            count -= part
            seen += part
            if seen >= _WITNESS_ITEMS_AT_ONCE:
                yield
                seen = 0
    if empty:
        raise RemoteProtocolError("a transaction has a superfluous witness")
    return offset


def read_transaction(data: bytes, offset: int = 0) -> Cooperative[Transaction]:
    """The transaction at `offset` of `data`; what follows it is not looked at."""
    if offset + 5 > len(data):
        raise Truncated(offset + 10)
    start = offset
    body = offset + 4
    limit = start + MAX_STRIPPED
    inputs, offset = yield from _read_list(data, body, _read_input, limit)
    flag = 0
    if not inputs:
        if offset >= len(data):
            raise Truncated(offset + 1)
        flag = data[offset]
        if flag:
            body = offset + 1
            inputs, offset = yield from _read_list(data, body, _read_input, limit)
    outputs, offset = yield from _read_list(data, offset, _read_output, limit)
    core_end = offset
    if flag == 1:
        offset = yield from _skip_witness(data, offset, len(inputs))
    elif flag:
        raise RemoteProtocolError("a transaction has data of an unknown kind")
    end = offset + 4
    if end > len(data):
        raise Truncated(end)
    core = data[start : start + 4] + data[body:core_end] + data[offset:end]
    version = int.from_bytes(data[start : start + 4], "little")
    return Transaction(version, inputs, outputs, double_sha256(core), end)


def parse_transaction(raw: bytes) -> Cooperative[Transaction]:
    """The transaction that `raw` is, with nothing behind it."""
    transaction = yield from read_transaction(raw)
    if transaction.end != len(raw):
        raise RemoteProtocolError("a transaction has bytes behind its end")
    return transaction


def is_transaction(raw: bytes) -> bool:
    """True if `raw` can be read as exactly one transaction."""
    try:
        finish(parse_transaction(raw))
    except RemoteProtocolError:
        return False
    return True
