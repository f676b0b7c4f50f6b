"""Name operations in transactions, and the key under which servers index a name.

Theory of operation
    A name operation is a prefix of an output script: OP_1, OP_2 or OP_3 for NAME_NEW,
    NAME_FIRSTUPDATE, NAME_UPDATE; one, three or two pushes; then DROPs; then an ordinary
    address script.  Namecoin Core's own reader is followed: pushes until the first of
    OP_DROP, OP_2DROP, OP_NOP, the exact number of them, OP_0 being an empty push.

    ElectrumX indexes a name under the SHA-256, reversed, of the script
    `OP_3 push(name) OP_0 OP_2DROP OP_DROP OP_RETURN`.

Invariants
    `name_update` accepts a transaction only if it is of the name version, has exactly
    one name output, and that is an update of exactly the name asked for.

Specification: Namecoin Core's `script/names.cpp`; the name index of Namecoin's ElectrumX.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Final

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.cooperative import Cooperative
from isoproxy.namecoin.chain.transaction import Transaction, parse_transaction
from isoproxy.namecoin.limits import MAX_NAME_BYTES, MAX_VALUE_BYTES

NAME_TX_VERSION: Final = 0x7100
_MERKLE_NODE_LENGTH: Final = 64
_SCRIPTS_AT_ONCE: Final = 1000

_OP_PUSHDATA1, _OP_PUSHDATA2, _OP_PUSHDATA4 = 0x4C, 0x4D, 0x4E
_OP_DROPS: Final = frozenset({0x61, 0x6D, 0x75})
"""OP_NOP, OP_2DROP, OP_DROP."""


class NameOp(Enum):
    """The kinds of name operations; the value is the op code."""

    NEW = 0x51
    FIRSTUPDATE = 0x52
    UPDATE = 0x53


_ARGUMENTS: Final = {NameOp.NEW: 1, NameOp.FIRSTUPDATE: 3, NameOp.UPDATE: 2}


@dataclass(frozen=True, slots=True)
class NameScript:
    """A name operation; `name` and `value` are empty for NAME_NEW."""

    op: NameOp
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class NameUpdate:
    """An update found in a transaction.  `txid` and `spends` are in internal byte order;
    `spends` lists the 36-byte outpoints that the transaction spends."""

    txid: bytes
    output: int
    op: NameOp
    value: bytes
    spends: tuple[bytes, ...]


def push(data: bytes) -> bytes:
    """The script that pushes `data`, in the form the index uses; at most 65535 bytes."""
    if len(data) < _OP_PUSHDATA1:
        return bytes([len(data)]) + data
    if len(data) <= 0xFF:
        return bytes([_OP_PUSHDATA1, len(data)]) + data
    return bytes([_OP_PUSHDATA2]) + len(data).to_bytes(2, "little") + data


def script_hash(name: bytes) -> str:
    """The hexadecimal key under which Electrum servers keep the history of `name`."""
    script = b"\x53" + push(name) + b"\x00\x6d\x75\x6a"
    return hashlib.sha256(script).digest()[::-1].hex()


def _next_op(script: bytes, offset: int) -> tuple[int, bytes, int] | None:
    """Op code, pushed bytes and the offset behind; None at the end or if cut off."""
    if offset >= len(script):
        return None
    code, start = script[offset], offset + 1
    if code < _OP_PUSHDATA1:
        length = code
    elif code <= _OP_PUSHDATA4:
        width = 1 << (code - _OP_PUSHDATA1)
        if start + width > len(script):
            return None
        length = int.from_bytes(script[start : start + width], "little")
        start += width
    else:
        return code, b"", start
    end = start + length
    return (code, script[start:end], end) if end <= len(script) else None


def parse_name_script(script: bytes) -> NameScript | None:
    """The name operation that `script` begins with, None if it has none."""
    if not script or script[0] not in (0x51, 0x52, 0x53):
        return None
    op, offset = NameOp(script[0]), 1
    arguments: list[bytes] = []
    while True:
        step = _next_op(script, offset)
        if step is None:
            return None
        code, data, offset = step
        if code in _OP_DROPS:
            break
        if code > _OP_PUSHDATA4:
            return None
        arguments.append(data)
        if len(arguments) > _ARGUMENTS[op]:
            return None
    if len(arguments) != _ARGUMENTS[op]:
        return None
    if op is NameOp.NEW:
        return NameScript(op, b"", b"")
    return NameScript(op, arguments[0], arguments[-1])


class NotAnUpdate(RemoteProtocolError):
    """A transaction, with id `txid` in internal byte order, gives the name no value."""

    def __init__(self, txid: bytes) -> None:
        super().__init__("a transaction is no update of the name")
        self.txid = txid


def _only_name_output(transaction: Transaction) -> Cooperative[tuple[int, NameScript]]:
    found = []
    for index, output in enumerate(transaction.outputs):
        script = parse_name_script(output.script)
        if script is not None:
            found.append((index, script))
        if index % _SCRIPTS_AT_ONCE == _SCRIPTS_AT_ONCE - 1:
            yield
    if not found:
        raise NotAnUpdate(transaction.txid)
    if len(found) > 1:
        raise RemoteProtocolError("a transaction has more than one name output")
    return found[0]


def name_update(raw: bytes, name: bytes) -> Cooperative[NameUpdate]:
    """The update of `name` that the transaction `raw` makes.

    Raises NotAnUpdate if it makes none, and RemoteProtocolError if it makes several, or is
    not a transaction that Namecoin would accept.
    """
    if len(raw) == _MERKLE_NODE_LENGTH:
        raise RemoteProtocolError("a transaction has the size of a Merkle node")
    transaction = yield from parse_transaction(raw)
    if transaction.version != NAME_TX_VERSION:
        raise NotAnUpdate(transaction.txid)
    index, script = yield from _only_name_output(transaction)
    if script.op is NameOp.NEW or script.name != name:
        raise NotAnUpdate(transaction.txid)
    if len(script.name) > MAX_NAME_BYTES or len(script.value) > MAX_VALUE_BYTES:
        raise RemoteProtocolError("a name or value is longer than the chain allows")
    spends = tuple(spent.prevout for spent in transaction.inputs)
    return NameUpdate(transaction.txid, index, script.op, script.value, spends)
