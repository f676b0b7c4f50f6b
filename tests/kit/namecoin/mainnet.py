"""A few blocks and transactions of the main chain itself, as its miners made them.

`tests/data/namecoin-mainnet` has one item a line: for headers the height, the block's hash
and the header with its merged-mining proof; for transactions the id and the bytes.  Block
19200 is the first merge-mined one, 19204 was mined without a parent after it.
"""

from __future__ import annotations

from typing import Final

from tests.kit.repository import DATA

_DATA: Final = DATA / "namecoin-mainnet"


def _lines(name: str) -> list[list[str]]:
    return [line.split() for line in (_DATA / name).read_text().splitlines()]


def mainnet_headers() -> dict[int, tuple[str, bytes]]:
    """Block hash (display order) and raw header by height."""
    return {
        int(height): (block_hash, bytes.fromhex(raw))
        for height, block_hash, raw in _lines("headers.txt")
    }


def mainnet_transactions() -> dict[str, bytes]:
    """Raw transactions by id (display order)."""
    return {txid: bytes.fromhex(raw) for txid, raw in _lines("transactions.txt")}
