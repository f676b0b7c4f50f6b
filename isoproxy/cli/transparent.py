"""`isoproxy transparent rules`: nftables for a gateway, which send machines' connections to us."""

from __future__ import annotations

import argparse

from isoproxy.cli.options import Commands, add_configuration, loaded
from isoproxy.errors import ConfigError


def register(commands: Commands) -> None:
    transparent = commands.add_parser(
        "transparent", help="a gateway for machines that know no proxy"
    )
    inner = transparent.add_subparsers(metavar="COMMAND", required=True)
    rules = inner.add_parser(
        "rules",
        help="print the nftables rules of a gateway",
        description="Prints nftables rules that send the TCP connections, and the DNS, of all "
        "machines behind INTERFACE to the [[transparent]] sections of the configuration, the first "
        "of each family, and reject all else they send.  Nothing is changed.",
    )
    add_configuration(rules)
    rules.add_argument(
        "interfaces", metavar="INTERFACE", nargs="+", help="towards the machines, such as eth1"
    )
    rules.set_defaults(run=print_rules)


def print_rules(options: argparse.Namespace) -> int:
    from isoproxy.transparent.rules import GatewayPorts, gateway_rules

    ports: dict[int, GatewayPorts] = {}
    for its in loaded(options).config.transparent:
        family = 6 if ":" in str(its.address.host) else 4
        dns = None if its.dns is None else its.dns.port
        ports.setdefault(family, GatewayPorts(family, its.address.port, dns))
    if not ports or any(0 in (its.tcp, its.dns) for its in ports.values()):
        raise ConfigError(
            "the configuration has no [[transparent]] section with fixed ports that connections "
            'could be sent to; add one, with address = "10.152.152.10:9240" and dns = '
            '"10.152.152.10:9253"'
        )
    print(gateway_rules(options.interfaces, list(ports.values())), end="")
    return 0
