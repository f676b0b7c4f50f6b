"""Renewing the trust anchor from a Namecoin Core of one's own.

Theory of operation
    The shipped anchor ages: every block above it is downloaded with its proof.  A full
    node that one runs oneself knows a newer block as well as the release did.
    `anchor_from_core` asks it for one, `ANCHOR_DEPTH` blocks deep so that no
    reorganisation can undo it, and `write_anchor` keeps it in the state directory, where
    `best_anchor` finds it.  The newest anchor is used.

Invariants
    A node that is still downloading, or on another network, gives no anchor.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from isoproxy.errors import OperationError
from isoproxy.namecoin.chain.params import Anchor, ChainParams, hash_from_hex
from isoproxy.namecoin.value.json import Json
from isoproxy.private_file import replace_file

ANCHOR_DEPTH: Final = 1008
"""Blocks; a week."""

RpcCall = Callable[[str, list[Json]], Awaitable[Json]]
"""`await call(method, params)` gives the result of a JSON-RPC call to Namecoin Core."""

_CHAINS: Final = {"mainnet": "main", "testnet": "test", "regtest": "regtest"}


def _path(directory: Path, network: ChainParams) -> Path:
    return directory / f"anchor-{network.name}.json"


async def anchor_from_core(
    call: RpcCall, network: ChainParams, depth: int = ANCHOR_DEPTH
) -> Anchor:
    """The block `depth` below the tip of the node behind `call`.

    Raises OperationError if the node cannot vouch for one.
    """
    info = await call("getblockchaininfo", [])
    if not isinstance(info, dict) or info.get("chain") != _CHAINS[network.name]:
        raise OperationError("the node is on another network; set names.electrum.network")
    if info.get("initialblockdownload", False):
        raise OperationError("the node is still downloading blocks; try again when it is done")
    tip = info.get("blocks")
    if type(tip) is not int or tip < depth:
        raise OperationError("the node has too few blocks; try again when it has more")
    block_hash = await call("getblockhash", [tip - depth])
    header = await call("getblockheader", [block_hash, True])
    try:
        if not isinstance(header, dict) or header["hash"] != block_hash:
            raise ValueError
        work = int(str(header["chainwork"]), 16)
        return Anchor(tip - depth, hash_from_hex(str(block_hash)), work)
    except (KeyError, ValueError):
        raise OperationError("the program that answered is not a Namecoin Core") from None


def write_anchor(directory: Path, network: ChainParams, anchor: Anchor) -> None:
    """Keep `anchor` in the state `directory`, atomically."""
    text = json.dumps(
        {
            "height": anchor.height,
            "hash": anchor.block_hash[::-1].hex(),
            "chainwork": f"{anchor.work:064x}",
        }
    )
    replace_file(_path(directory, network), text + "\n")


def read_anchor(directory: Path, network: ChainParams) -> Anchor | None:
    """The anchor that was kept, None if there is none; raises OperationError."""
    path = _path(directory, network)
    try:
        data = json.loads(path.read_text())
        height, work = data["height"], int(data["chainwork"], 16)
        if type(height) is not int or height < 0:
            raise ValueError
        return Anchor(height, hash_from_hex(data["hash"]), work)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise OperationError(
            f"{path.name} in the state directory cannot be read; remove it or run "
            "'isoproxy names anchor' again"
        ) from None


def best_anchor(network: ChainParams, directory: Path | None) -> Anchor:
    """The newer of the shipped anchor and the one kept in `directory`."""
    kept = read_anchor(directory, network) if directory is not None else None
    if kept is not None and kept.height > network.anchor.height:
        return kept
    return network.anchor
