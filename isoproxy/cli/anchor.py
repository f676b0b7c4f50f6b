"""`isoproxy names anchor`: a newer block to begin with, from a Namecoin Core of one's own."""

from __future__ import annotations

import argparse
import asyncio

from isoproxy.cli.options import loaded
from isoproxy.config import Config, LoginAt, state_directory
from isoproxy.daemon.compose.names import rpc_client
from isoproxy.daemon.settings.names import names_directory
from isoproxy.errors import IsoproxyError, OperationError
from isoproxy.namecoin.chain.anchor import anchor_from_core, best_anchor, write_anchor
from isoproxy.namecoin.chain.params import NETWORKS, Anchor
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json


def renew_anchor(options: argparse.Namespace) -> int:
    config = loaded(options).config
    network = NETWORKS[config.names.electrum.network]
    anchor = asyncio.run(_anchor(config))
    directory = names_directory(state_directory())
    known = best_anchor(network, directory)
    if anchor.height <= known.height:
        print(f"the anchor at block {known.height} is as new; nothing to do")
        return 0
    write_anchor(directory, network, anchor)
    print(
        f"the anchor is now block {anchor.height}, {anchor.block_hash[::-1].hex()}; "
        "a running isoproxy uses it after a restart"
    )
    return 0


async def _anchor(config: Config) -> Anchor:
    rpc = config.names.rpc
    client = rpc_client(rpc, LoginAt(rpc.address), core=True)

    async def call(method: str, params: list[Json]) -> Json:
        return await client.call(method, params)

    try:
        return await anchor_from_core(call, NETWORKS[config.names.electrum.network])
    except RpcError as error:
        raise OperationError(
            f"the program at names.rpc.address refused ({error}); is it a Namecoin Core?"
        ) from None
    except IsoproxyError as error:
        raise OperationError(str(error)) from None
    finally:
        client.close()
