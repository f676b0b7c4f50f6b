"""`isoproxy dns dump`: all of bit, from a Namecoin Core of one's own, as a zone file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace

from isoproxy.cli.options import loaded
from isoproxy.cli.resolve_text import problem_lines, zone_lines
from isoproxy.config import Config, LoginAt, state_directory
from isoproxy.daemon.compose.names import rpc_client
from isoproxy.daemon.compose.resolver import open_resolver
from isoproxy.dns.dump import dump
from isoproxy.errors import NamingError, OperationError
from isoproxy.namecoin.resolve.resolver import Zone
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.name import BitName


def dump_zone(options: argparse.Namespace) -> int:
    return asyncio.run(_dump(loaded(options).config))


async def _dump(config: Config) -> int:
    """0 if there was any name."""
    config = replace(config, names=replace(config.names, backend="namecoin-core"))
    client = rpc_client(config.names.rpc, LoginAt(config.names.rpc.address), core=True)

    async def call(method: str, params: list[Json]) -> Json:
        return await client.call(method, params)

    found = False
    try:
        async with open_resolver(config, state_directory(), None) as (resolver, isolator):
            async for name, zone in dump(call, resolver, isolator.own_key("dump")):
                found |= _print_zone(name, zone)
    except RpcError as error:
        raise OperationError(
            f"the program at names.rpc.address refused ({error}); is it a Namecoin Core?"
        ) from None
    finally:
        client.close()
    return 0 if found else 1


def _print_zone(name: BitName, zone: Zone | NamingError) -> bool:
    """Print the records of a name, or why there are none; returns whether there are."""
    if isinstance(zone, NamingError):
        print(f"; {name}. {zone}", file=sys.stderr)
        return False
    data = zone.as_json()
    for line in zone_lines(data):
        print(line)
    for line in problem_lines(data):
        print(line, file=sys.stderr)
    return True
