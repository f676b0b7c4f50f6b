"""`isoproxy bitcoin proxy`: port 1324 without a configuration; `isoproxy bitcoin redirect`: rules
that send a group's Bitcoin connections to it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from isoproxy.cli.options import Commands, add_configuration, add_settings, loaded
from isoproxy.cli.service import run_service
from isoproxy.errors import ConfigError

DEFAULT_GROUP: Final = "bitcoin-v2"
PROXY_PORT: Final = 1324
"""The default of bip324-proxy, and of `bitcoin.proxy`."""
_IPV6: Final = Path("/proc/net/if_inet6")


def register(commands: Commands) -> None:
    bitcoin = commands.add_parser("bitcoin", help="Bitcoin programs that know no proxy")
    inner = bitcoin.add_subparsers(metavar="COMMAND", required=True)
    proxy = inner.add_parser(
        "proxy",
        help=f"open the proxy at port {PROXY_PORT}, and nothing else",
        description="Opens the proxy for Bitcoin programs that know no proxy, and nothing else, "
        "until stopped. No configuration file is read; Tor is started, peers are spoken to in v2, "
        "and in v1 if they are onion services without v2.",
    )
    add_settings(proxy)
    proxy.set_defaults(run=run_proxy)
    redirect = inner.add_parser(
        "redirect",
        help="send a system group's Bitcoin connections to the proxy",
        description="Prints nftables rules that send the Bitcoin connections of a system group's "
        "programs to the first proxy of the configuration, and reject all else they send; without "
        "a configuration, to the one that `isoproxy bitcoin proxy` opens.",
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


def run_proxy(options: argparse.Namespace) -> int:
    options.config = Path(os.devnull)
    options.settings = [*proxy_settings(), *options.settings]
    return run_service(options)


def proxy_settings() -> list[str]:
    """What `--set` would have to say: the proxy at each loopback address of this machine."""
    hosts = ["127.0.0.1", "[::1]"] if _IPV6.exists() else ["127.0.0.1"]
    places = ", ".join(f'{{ address = "{host}:{PROXY_PORT}" }}' for host in hosts)
    return ["listener=[]", "names.backend=none", f"bitcoin.proxy=[{places}]"]


def print_rules(options: argparse.Namespace) -> int:
    from isoproxy.bitcoin.redirect import nft_rules

    found = loaded(options)
    bitcoin = found.config.bitcoin
    ports = [proxy.address.port for proxy in bitcoin.proxy if proxy.address.port]
    if not ports and not found.files:
        ports = [PROXY_PORT]
    if not ports:
        raise ConfigError(
            "the configuration has no proxy that connections could be sent to; add "
            '[[bitcoin.proxy]] with address = "127.0.0.1:1324"'
        )
    print(nft_rules(options.group, proxy_port=ports[0], ports=bitcoin.ports), end="")
    return 0
