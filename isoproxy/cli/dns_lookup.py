"""`isoproxy dns lookup`: one question to the running DNS server."""

from __future__ import annotations

import argparse
import socket
from typing import Final

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from isoproxy.cli.options import loaded
from isoproxy.cli.secret_input import isolation_id, word
from isoproxy.dns.query import ISOLATION_OPTION, MAX_ISOLATION_ID
from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.endpoint import Endpoint

_TIMEOUT_S: Final = 70.0
"""A little more than the resolver's own deadline."""


def look_up(options: argparse.Namespace) -> int:
    """Print the response; 1 if it is an error or holds no answer."""
    query = _query(options)
    response = _exchange(query, _server(options))
    print(response)
    return 0 if response.rcode() == dns.rcode.NOERROR and response.answer else 1


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
