"""`isoproxy dns`: keys for the DNS server, questions to it, and the whole zone."""

from __future__ import annotations

import argparse
from pathlib import Path

from isoproxy.cli.options import Commands, add_configuration
from isoproxy.cli.secret_input import WARNING, add_isolation


def register(commands: Commands) -> None:
    group = commands.add_parser("dns", help="keys for the DNS server, and questions to it")
    inner = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    keygen = inner.add_parser("keygen", help="make a DNSSEC key and print its trust anchor")
    keygen.add_argument("file", type=Path, metavar="FILE")
    keygen.set_defaults(run=make_key)

    anchor = inner.add_parser("anchor", help="print the trust anchor of a DNSSEC key")
    anchor.add_argument("file", type=Path, metavar="FILE")
    anchor.set_defaults(run=print_anchor)

    lookup = inner.add_parser(
        "lookup",
        help="ask the running DNS server",
        description="Asks the running DNS server and prints its response.  "
        f"{WARNING}  With - for NAME it is a line of standard input.",
    )
    add_configuration(lookup)
    lookup.add_argument("name", metavar="NAME", help="a domain name, or - to read it")
    lookup.add_argument("type", metavar="TYPE", nargs="?", default="A")
    add_isolation(lookup, "keep this question apart from others")
    lookup.add_argument("--dnssec", action="store_true", help="ask for signatures, too")
    lookup.add_argument(
        "--server",
        metavar="ADDRESS",
        help='where it listens, "IP:port" or "unix:/path" (default: dns.address)',
    )
    lookup.set_defaults(run=look_up)

    whole = inner.add_parser(
        "dump", help="print all of bit from a Namecoin Core of your own (names.rpc), as a zone file"
    )
    add_configuration(whole)
    whole.set_defaults(run=dump_zone)


def make_key(options: argparse.Namespace) -> int:
    from isoproxy.dns.sign import ZoneKey

    key = ZoneKey.generate()
    key.store(options.file)
    print(key.anchor())
    return 0


def print_anchor(options: argparse.Namespace) -> int:
    from isoproxy.dns.sign import ZoneKey

    print(ZoneKey.load(options.file).anchor())
    return 0


def look_up(options: argparse.Namespace) -> int:
    from isoproxy.cli.dns_lookup import look_up

    return look_up(options)


def dump_zone(options: argparse.Namespace) -> int:
    from isoproxy.cli.dns_dump import dump_zone

    return dump_zone(options)
