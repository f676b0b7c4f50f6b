"""The shapes of Electrum servers' answers: JSON in, typed values or an error out.

Invariants
    Numbers are exact integers in their range (a JSON `true` or `1.0` is none), hashes
    have 64 digits, and every list is bounded before it is read.

Specification: Electrum protocol 1.4, "Protocol Methods".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import HEADER_LENGTH
from isoproxy.namecoin.chain.merkle import MAX_BRANCH
from isoproxy.namecoin.chain.spv import MAX_OPERATIONS, CheckpointProof, NameProof

MAX_HEIGHT: Final = 1 << 31
MAX_HISTORY: Final = 100_000
MAX_TRANSACTION: Final = 4_000_000
"""Bytes; the consensus limit of a block."""


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """A transaction (id in internal byte order) and the height it is said to be at."""

    height: int
    txid: bytes


@dataclass(frozen=True, slots=True)
class TipClaim:
    """The 80 bytes of a header that a server says is its newest."""

    height: int
    raw: bytes


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RemoteProtocolError("a name server's answer is not an object")
    return value


def _items(value: object, limit: int) -> list[object]:
    if not isinstance(value, list) or len(value) > limit:
        raise RemoteProtocolError("a name server's answer is not a list, or too long")
    return value


def _integer(value: object, limit: int = MAX_HEIGHT) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise RemoteProtocolError("a name server's number is none, or out of range")
    return value


def hex_bytes(value: object, limit: int) -> bytes:
    """The bytes that the JSON string `value` spells in hexadecimal, at most `limit`."""
    if not isinstance(value, str) or len(value) > 2 * limit or not value.isascii():
        raise RemoteProtocolError("a name server's data is not text, or too long")
    try:
        data = bytes.fromhex(value)
    except ValueError:
        raise RemoteProtocolError("a name server's data is not hexadecimal") from None
    if len(value) != 2 * len(data):
        raise RemoteProtocolError("a name server's data is not plain hexadecimal")
    return data


def hash_bytes(value: object) -> bytes:
    """A hash in internal byte order from its 64 reversed digits."""
    data = hex_bytes(value, 32)
    if len(data) != 32:
        raise RemoteProtocolError("a name server's hash is too short")
    return data[::-1]


def _branch(value: object) -> tuple[bytes, ...]:
    return tuple(hash_bytes(item) for item in _items(value, MAX_BRANCH))


def server_version(value: object) -> str:
    """The negotiated protocol version of a `server.version` answer."""
    pair = _items(value, 2)
    if len(pair) != 2 or not isinstance(pair[1], str):
        raise RemoteProtocolError("a name server did not negotiate a protocol version")
    return pair[1]


def genesis_hash(value: object) -> bytes:
    """The first block's hash of a `server.features` answer, internal byte order."""
    return hash_bytes(_object(value).get("genesis_hash"))


def tip_claim(value: object, limit: int) -> TipClaim:
    """The answer to `blockchain.headers.subscribe`, or an item of its notifications."""
    claim = _object(value)
    raw = hex_bytes(claim.get("hex"), limit)
    if len(raw) < HEADER_LENGTH:
        raise RemoteProtocolError("a name server's newest header is too short")
    return TipClaim(_integer(claim.get("height")), raw[:HEADER_LENGTH])


def header_blob(value: object, limit: int) -> tuple[int, bytes]:
    """Count and concatenated headers of a `blockchain.block.headers` answer."""
    answer = _object(value)
    return _integer(answer.get("count")), hex_bytes(answer.get("hex"), limit)


def history(value: object) -> list[HistoryItem]:
    """The answer to `blockchain.scripthash.get_history`, newest first, each entry once."""
    found: dict[HistoryItem, None] = {}
    for item in reversed(_items(value, MAX_HISTORY)):
        entry = _object(item)
        if entry.get("height") in (0, -1):
            continue  # what is in no block yet
        known = HistoryItem(_integer(entry.get("height")), hash_bytes(entry.get("tx_hash")))
        found[known] = None
    return sorted(found, key=lambda known: known.height, reverse=True)


def checkpoint_proof(value: object) -> CheckpointProof:
    """The answer to `blockchain.block.header` with a checkpoint height."""
    answer = _object(value)
    return CheckpointProof(hex_bytes(answer.get("header"), 80), _branch(answer.get("branch")))


def name_proof(height: int, transaction: object, merkle: object) -> NameProof:
    """A proof from the answers to `transaction.get` and `transaction.get_merkle`."""
    branch = _object(merkle)
    said = branch.get("block_height", height)
    if said != height:
        raise RemoteProtocolError("a Merkle branch is of another block than asked for")
    return NameProof(
        height,
        hex_bytes(transaction, MAX_TRANSACTION),
        _branch(branch.get("merkle")),
        _integer(branch.get("pos")),
    )


def value_proof(value: object, key: str) -> list[NameProof]:
    """The answer to `blockchain.name.get_value_proof` for script hash `key`, newest first."""
    entries = _items(_object(value).get(key), MAX_HISTORY)
    proofs = [_value_proof_item(entry) for entry in entries[:MAX_OPERATIONS]]
    return sorted(proofs, key=lambda proof: proof.height, reverse=True)


def _value_proof_item(value: object) -> NameProof:
    entry = _object(value)
    return name_proof(_integer(entry.get("height")), entry.get("tx"), entry.get("tx_merkle"))


def count_down_to(items: Sequence[HistoryItem], deep: int) -> int:
    """How many of newest-first `items` there are down to the first at `deep` or below."""
    return next((n for n, item in enumerate(items, 1) if item.height <= deep), len(items))
