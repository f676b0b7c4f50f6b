"""`isoproxy dns`: keys for the DNS server, questions to it, and the whole zone."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from isoproxy.cli.options import Commands, add_configuration, loaded
from isoproxy.cli.resolve_text import problem_lines, zone_lines
from isoproxy.cli.secret_input import WARNING, add_isolation, isolation_id, word
from isoproxy.config import Config, LoginAt, state_directory
from isoproxy.daemon.compose.names import rpc_client
from isoproxy.daemon.compose.resolver import open_resolver
from isoproxy.dns.dump import dump
from isoproxy.dns.query import ISOLATION_OPTION, MAX_ISOLATION_ID
from isoproxy.dns.sign import ZoneKey
from isoproxy.errors import ConfigError, NamingError, OperationError
from isoproxy.namecoin.resolve.resolver import Zone
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.endpoint import Endpoint

_TIMEOUT_S: Final = 70.0
"""A little more than the resolver's own deadline."""


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
    key = ZoneKey.generate()
    key.store(options.file)
    print(key.anchor())
    return 0


def print_anchor(options: argparse.Namespace) -> int:
    print(ZoneKey.load(options.file).anchor())
    return 0


def look_up(options: argparse.Namespace) -> int:
    """Print the response; 1 if it is an error or holds no answer."""
    query = _query(options)
    response = _exchange(query, _server(options))
    print(response)
    return 0 if response.rcode() == dns.rcode.NOERROR and response.answer else 1


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


def _query(options: argparse.Namespace) -> dns.message.Message:
    isolation = isolation_id(options)
    try:
        name = dns.name.from_text(word(options.name, "name"))
        rdtype = dns.rdatatype.from_text(options.type)
    except (dns.exception.DNSException, ValueError, UnicodeError):
        raise ConfigError("expected a domain name and a record type, e.g. example.bit A") from None
    query = dns.message.make_query(name, rdtype)
    listed: list[dns.edns.Option] = []
    if isolation is not None:
        data = isolation.encode("utf-8", "surrogateescape")
        if len(data) > MAX_ISOLATION_ID:
            raise ConfigError(f"an isolation ID has at most {MAX_ISOLATION_ID} bytes here")
        option = dns.edns.OptionType.make(ISOLATION_OPTION)
        listed.append(dns.edns.GenericOption(option, data))
    query.use_edns(0, 0x8000 if options.dnssec else 0, 1232, options=listed)
    return query


def _server(options: argparse.Namespace) -> Endpoint:
    if options.server is not None:
        try:
            return Endpoint.parse_listening(options.server)
        except ConfigError as error:
            raise ConfigError(f"--server: {error}") from None
    address = loaded(options).config.dns.address
    if address is None:
        raise ConfigError("the configuration has no DNS server; set dns.address or use --server")
    return address


def _exchange(query: dns.message.Message, server: Endpoint) -> dns.message.Message:
    """The response to `query`, over a stream: it is never cut short there."""
    try:
        with socket.socket(server.family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(server.address)
            dns.query.send_tcp(sock, query)
            response, _ = dns.query.receive_tcp(sock)
    except (OSError, EOFError, dns.exception.DNSException):
        raise OperationError(
            f"no answer from the DNS server at {server}; see whether isoproxy runs there: "
            "isoproxy status"
        ) from None
    return response
