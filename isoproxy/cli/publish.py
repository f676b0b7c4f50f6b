"""`isoproxy publish`: a local service as an onion service, as long as this command runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from isoproxy.cli.options import Commands, add_configuration


def register(commands: Commands) -> None:
    publish = commands.add_parser(
        "publish",
        help="offer a local service as an onion service",
        description="Offers the local service at TARGET as an onion service until stopped, "
        "through the Tor of the configuration (a running isoproxy's own in managed mode).  "
        "Prints its address and multiaddr.  Without --key-file the address is a new one "
        "each time.",
    )
    add_configuration(publish)
    publish.add_argument("target", metavar="TARGET", help="IP:port or unix:/path of the service")
    publish.add_argument(
        "--port",
        type=int,
        action="append",
        metavar="N",
        help="port of the onion service, may be repeated (default: the target's)",
    )
    publish.add_argument(
        "--key-file", type=Path, metavar="FILE", help="where its key is kept; made if missing"
    )
    publish.add_argument(
        "--client",
        action="append",
        default=[],
        metavar="KEY",
        help="let in nobody but holders of such x25519 keys (base32); may be repeated",
    )
    publish.add_argument(
        "--v2", action="store_true", help="speak BIP324 to peers, v1 to the Bitcoin node"
    )
    publish.add_argument(
        "--network",
        metavar="NAME",
        help="with --v2: the node's network (default: the one whose port this is)",
    )
    publish.add_argument(
        "--advertise-v2",
        action="store_true",
        help="with --v2: set service bit 11 in the node's VERSION, so that peers come in v2 again",
    )
    publish.set_defaults(run=publish_service)


def publish_service(options: argparse.Namespace) -> int:
    from isoproxy.cli.publishing import publish_service

    return publish_service(options)
