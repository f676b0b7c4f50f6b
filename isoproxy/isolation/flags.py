"""The fields of an isolation tuple that a listener's flags select, named as in tor(1)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, Flag, auto
from typing import Final


class Isolate(Flag):
    """The fields that separate streams at a listener, named as in tor(1)."""

    NOTHING = 0
    CLIENT_ADDR = auto()
    SOCKS_AUTH = auto()
    CLIENT_PROTOCOL = auto()
    DEST_ADDR = auto()
    DEST_PORT = auto()


DEFAULT_ISOLATION: Final = Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH


FLAG_NAMES: Final = {
    "ClientAddr": Isolate.CLIENT_ADDR,
    "SOCKSAuth": Isolate.SOCKS_AUTH,
    "ClientProtocol": Isolate.CLIENT_PROTOCOL,
    "DestAddr": Isolate.DEST_ADDR,
    "DestPort": Isolate.DEST_PORT,
}
"""Spelling in our configuration; Tor's own is the same behind `Isolate`."""


def parse_isolation(names: Iterable[str]) -> Isolate:
    """The flags a configuration lists, e.g. `["ClientAddr", "IsolateDestPort"]`.

    Raises ValueError with the unknown name.
    """
    spellings = {name.lower(): flag for name, flag in FLAG_NAMES.items()}
    flags = Isolate.NOTHING
    for name in names:
        flag = spellings.get(name.lower().removeprefix("isolate"))
        if flag is None:
            raise ValueError(name)
        flags |= flag
    return flags


class ClientProtocol(Enum):
    """How a stream reached us; the value is its place in the canonical encoding."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    SOCKS4 = b"socks4"
    SOCKS5 = b"socks5"
    HTTP_CONNECT = b"http-connect"
    DNS = b"dns"
    BITCOIN = b"bitcoin"
    TRANSPARENT = b"transparent"
    """Redirected by nftables: of a program that knows no proxy."""
    PLUGIN = b"plugin"
    COMMAND = b"command"
    """A command of our own: `isoproxy resolve`, `dial`, the Python interface."""
    INTERNAL = b"internal"
    """Our own upkeep: header synchronisation, pools, health checks."""
