"""What a name server says: the wire, the answers, headers, transactions and proofs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import HeaderRejected, series
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.merkle import checkpoint_root, transaction_root
from isoproxy.namecoin.chain.name_script import NotAnUpdate, parse_name_script, script_hash
from isoproxy.namecoin.chain.params import REGTEST, Anchor
from isoproxy.namecoin.chain.spv import HeaderMissing, NotInBlock, judge
from isoproxy.namecoin.chain.transaction import Truncated, is_transaction
from isoproxy.namecoin.electrum import results
from isoproxy.namecoin.electrum.wire import MAX_LINE, Wire
from tests.fire.fuzz.target import FuzzTarget, pieces
from tests.kit.electrum_server import ElectrumServer
from tests.kit.namecoin.at_once import (
    append,
    check_proof_of_work,
    name_update,
    parse_header,
    parse_transaction,
    read_header,
    read_transaction,
    verify,
)
from tests.kit.namecoin.chain import RegtestChain
from tests.unit.namecoin.value.inquiry import encode

_REMOTE: Final = (RemoteProtocolError, LimitExceeded)
_NAME: Final = b"d/plain4"
_RECORDED: Final = RegtestChain.recorded()
_HEADERS: Final = _RECORDED.headers()


@cache
def _chain() -> HeaderChain:
    anchor = 20
    mined = [parse_header(raw) for raw in _HEADERS]
    chain = HeaderChain(REGTEST, Anchor(anchor, mined[anchor].header.block_hash))
    chain.extend_down([header.header for header in mined[: anchor + 1]])
    branch = chain.branch(anchor)
    for header in mined[anchor + 1 :]:
        append(branch, header)
    chain.adopt(branch)
    return chain


def _wire(data: bytes) -> None:
    whole, parts = Wire(), Wire()
    for wire in (whole, parts):
        for _ in range(3):
            wire.request("server.ping", [])
    events = whole.receive(data[1:])
    assert events == [event for part in pieces(data) for event in parts.receive(part)]
    assert len(whole._buffer) <= MAX_LINE


_READERS: Final[list[Callable[[Any], Any]]] = [
    results.server_version,
    results.genesis_hash,
    lambda value: results.tip_claim(value, 1 << 16),
    lambda value: results.header_blob(value, 1 << 16),
    results.history,
    results.checkpoint_proof,
    lambda value: results.name_proof(100, value, value),
    lambda value: results.value_proof(value, script_hash(_NAME)),
    lambda value: results.hex_bytes(value, 1 << 16),
    results.hash_bytes,
]


def _answers(data: bytes) -> None:
    """One answer, which byte 0 says how to read."""
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        return
    _READERS[data[0] % len(_READERS)](value)


def _value_proof(data: bytes) -> None:
    """An answer all the way to a verdict."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    chain = _chain()
    proofs = results.value_proof(value, script_hash(_NAME))
    operations = [verify(chain, _NAME, proof) for proof in proofs]
    judge(operations, chain, 6)


def _header(data: bytes) -> None:
    mined = parse_header(data)
    check_proof_of_work(mined, 30, REGTEST)


def _header_stream(data: bytes) -> None:
    blob, at = data[1:], 0
    found = _all(blob)
    for mined in found:
        again, at = read_header(blob, at)
        assert mined == again
    assert at == len(blob)
    assert all(len(mined.header.raw) == 80 for mined in found)


def _branch(data: bytes) -> None:
    """A header, put on top of the chain it was mined for or of another block."""
    chain = _chain()
    height = 20 + data[0] % (chain.tip_height - 20) if data else 20
    branch = chain.branch(height)
    for mined in _all(data[1:]):
        append(branch, mined, now=None)


def _all(data: bytes) -> list[Any]:
    return [mined for mined in series(data) if mined is not None]


def _transaction(data: bytes) -> None:
    transaction = parse_transaction(data)
    assert transaction.end == len(data)
    assert is_transaction(data)
    for output in transaction.outputs:
        parse_name_script(output.script)
    assert read_transaction(b"x" + data, 1).txid == transaction.txid


def _name_update(data: bytes) -> None:
    update = name_update(data, _NAME)
    assert update.value is not None


def _merkle(data: bytes) -> None:
    position = int.from_bytes(data[:3], "little")
    branch = [data[at : at + 32] for at in range(3, len(data), 32)]
    with contextlib.suppress(RemoteProtocolError):
        transaction_root(bytes(32), branch, position)
    checkpoint_root(bytes(32), branch, position, 149)


def _proof() -> bytes:
    answer = ElectrumServer(_RECORDED)._blockchain_name_get_value_proof(script_hash(_NAME))
    return json.dumps(answer).encode()


def _name_transactions() -> list[bytes]:
    def makes_it(raw: bytes) -> bool:
        with contextlib.suppress(RemoteProtocolError):
            return name_update(raw, _NAME) is not None
        return False

    return [raw for raw in _RECORDED.transactions.values() if makes_it(raw)]


_LINES: Final = (
    b'{"jsonrpc":"2.0","id":1,"result":["ElectrumX 2","1.4.3"]}\n'
    b'{"jsonrpc":"2.0","method":"blockchain.headers.subscribe","params":[{"height":1}]}\n'
    b'{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":"no"}}\n'
)
_HASH: Final = "00" * 31 + "01"
_ANSWERS: Final = {
    0: ["ElectrumX 2", "1.4.3"],
    1: {"genesis_hash": _HASH},
    2: {"hex": _HEADERS[-1].hex(), "height": 168},
    3: {"count": 1, "hex": _HEADERS[3].hex(), "max": 2016},
    4: [{"tx_hash": _HASH, "height": 3}],
    5: {"header": _HEADERS[3][:80].hex(), "branch": [_HASH], "root": _HASH},
    8: "00ff",
    9: _HASH,
}

TARGETS: Final = [
    FuzzTarget("electrum-wire", _wire, _REMOTE, [bytes([n]) + _LINES for n in (0, 9, 255)]),
    FuzzTarget(
        "electrum-answers",
        _answers,
        _REMOTE,
        [bytes([kind]) + encode(value) for kind, value in _ANSWERS.items()],
    ),
    FuzzTarget(
        "value-proof",
        _value_proof,
        (*_REMOTE, HeaderMissing, NotInBlock, Truncated),
        [_proof(), encode({script_hash(_NAME): []})],
    ),
    FuzzTarget(
        "header",
        _header,
        (*_REMOTE, HeaderRejected, Truncated),
        _HEADERS[30:160:40],
    ),
    FuzzTarget(
        "header-stream",
        _header_stream,
        (*_REMOTE, Truncated),
        [bytes([n]) + b"".join(_HEADERS[10:14]) for n in (80, 255)],
    ),
    FuzzTarget(
        "header-chain",
        _branch,
        (*_REMOTE, HeaderRejected, Truncated),
        [bytes([height - 20]) + _HEADERS[height + 1] for height in (30, 100)],
    ),
    FuzzTarget(
        "transaction",
        _transaction,
        (*_REMOTE, Truncated),
        list(_RECORDED.transactions.values())[-4:],
    ),
    FuzzTarget(
        "name-transaction", _name_update, (*_REMOTE, Truncated, NotAnUpdate), _name_transactions()
    ),
    FuzzTarget("merkle", _merkle, (RemoteProtocolError,), [b"\x03\x00\x00" + bytes(32 * 8)]),
]
