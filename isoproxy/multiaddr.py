"""Multiaddrs: the few forms that name something Tor can connect to.

Theory of operation
    A multiaddr is a path of protocols and values, outermost first
    (github.com/multiformats/multiaddr).  Tor carries TCP streams, so these are the forms:

        /onion3/<56 characters>:<port>
        /dns/<name>/tcp/<port>          also dns4, dns6: Tor's exits choose the family
        /ip4/<address>/tcp/<port>
        /ip6/<address>/tcp/<port>

    each with `/p2p/<peer ID>` behind it or not.  What comes with the peer ID is kept as it
    is for whoever speaks libp2p.  Everything else (`udp`, `quic`, `ws`, `dnsaddr`, a relay
    in between) is refused by name.

    The package `multiaddr` reads many more, and brings along an event loop, a library
    that lists the machine's interfaces and a resolver of its own; nothing of that may be
    near a program that must not leak.

Invariants
    No address parses to a target that the text does not name literally; nothing is
    resolved.  An onion address has a valid checksum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.errors import ConfigError, IsoproxyError
from isoproxy.net.onion_address import onion_host
from isoproxy.net.target import Target

_MAX_LENGTH: Final = 512
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_PEER: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,64}|[a-z0-9]{50,120}", re.ASCII)
"""Base58 of a multihash, or a CID in lower-case multibase."""
_FORMS: Final = (
    "/onion3/ADDRESS:PORT, /dns/NAME/tcp/PORT, /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT, "
    "each with or without /p2p/PEER"
)


@dataclass(frozen=True, slots=True)
class Multiaddr:
    """Where to connect, and the peer expected there; `protocol` is the first one written."""

    protocol: str
    target: Target
    peer: str | None = None

    @classmethod
    def parse(cls, text: str) -> Multiaddr:
        """Read one of the forms; raises ConfigError, which does not quote `text`."""
        if len(text) > _MAX_LENGTH or not text.startswith("/"):
            raise ConfigError(f"a multiaddr is written {_FORMS}")
        protocol, *rest = text[1:].split("/")
        match protocol, rest:
            case "onion3", [value, *rest]:
                target = _onion(value)
            case (("dns" | "dns4" | "dns6" | "ip4" | "ip6"), [host, "tcp", port, *rest]):
                target = _tcp(protocol, host, port)
            case _:
                raise ConfigError(f"Tor has no way to such an address; a multiaddr is {_FORMS}")
        match rest:
            case []:
                return cls(protocol, target)
            case ["p2p", peer] if _PEER.fullmatch(peer) is not None:
                return cls(protocol, target, peer)
        raise ConfigError("only /p2p/PEER may follow in a multiaddr for Tor")

    def __str__(self) -> str:
        if self.protocol == "onion3":
            host = self.target.host.removesuffix(".onion")
            path = f"/onion3/{host}:{self.target.port}"
        else:
            path = f"/{self.protocol}/{self.target.host}/tcp/{self.target.port}"
        return path if self.peer is None else f"{path}/p2p/{self.peer}"


def onion_multiaddr(address: str, port: int) -> Multiaddr:
    """The multiaddr of an onion service's port; `address` ends in `.onion`."""
    return Multiaddr("onion3", Target.parse(address, port))


def parse_destination(text: str) -> Target:
    """A target from `HOST:PORT`, `[IPv6]:PORT` or a multiaddr; raises ConfigError."""
    if text.startswith("/"):
        return Multiaddr.parse(text).target
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or (":" in host) != bracketed:
        raise ConfigError("expected HOST:PORT, [IPv6 address]:PORT or a multiaddr")
    return _target(host, _port(port))


def _onion(value: str) -> Target:
    address, _, port = value.partition(":")
    host = onion_host(f"{address}.onion") if "." not in address else None
    if host is None:
        raise ConfigError("the onion3 address is misspelt: its checksum is wrong")
    return _target(host, _port(port))


def _tcp(protocol: str, host: str, port: str) -> Target:
    try:
        if protocol == "ip4":
            host = str(IPv4Address(host))
        elif protocol == "ip6":
            host = str(IPv6Address(host))
    except ValueError:
        raise ConfigError(f"the multiaddr's {protocol} address is none") from None
    target = _target(host, _port(port))
    if target.is_ip != (protocol in ("ip4", "ip6")):
        raise ConfigError(f"the multiaddr has an address where {protocol} wants a name")
    return target


def _target(host: str, port: int) -> Target:
    try:
        return Target.parse(host, port)
    except IsoproxyError as error:
        raise ConfigError(str(error)) from None


def _port(text: str) -> int:
    if _PORT.fullmatch(text) is None or int(text) > 0xFFFF:
        raise ConfigError("the port must be a number from 1 to 65535")
    return int(text)
