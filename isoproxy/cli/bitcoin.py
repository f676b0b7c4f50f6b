"""`isoproxy bitcoin redirect`: rules that send a group's Bitcoin connections to the proxy."""

from __future__ import annotations

import argparse
from typing import Final

from isoproxy.cli.options import Commands, add_configuration, loaded
from isoproxy.errors import ConfigError

DEFAULT_GROUP: Final = "bitcoin-v2"


def register(commands: Commands) -> None:
    bitcoin = commands.add_parser("bitcoin", help="Bitcoin programs that know no proxy")
    inner = bitcoin.add_subparsers(metavar="COMMAND", required=True)
    redirect = inner.add_parser(
        "redirect",
        help="send a system group's Bitcoin connections to the proxy",
        description="Prints nftables rules that send the Bitcoin connections of a system group's "
        "programs to the first proxy of the configuration, and reject all else they send.",
    )
    add_configuration(redirect)
    redirect.add_argument(
        "--print", action="store_true", required=True, help="print the rules; nothing is changed"
    )
    redirect.add_argument(
        "group", metavar="GROUP", nargs="?", default=DEFAULT_GROUP,
        help=f"name or number of the group (default: {DEFAULT_GROUP})",
    )  # fmt: skip
    redirect.set_defaults(run=print_rules)


def print_rules(options: argparse.Namespace) -> int:
    from isoproxy.bitcoin.redirect import nft_rules

    bitcoin = loaded(options).config.bitcoin
    ports = [proxy.address.port for proxy in bitcoin.proxy if proxy.address.port]
    if not ports:
        raise ConfigError(
            "the configuration has no proxy that connections could be sent to; add "
            '[[bitcoin.proxy]] with address = "127.0.0.1:1324"'
        )
    print(nft_rules(options.group, proxy_port=ports[0], ports=bitcoin.ports), end="")
    return 0
