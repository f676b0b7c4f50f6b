"""Electrum servers for Namecoin: how they are written down, and the list we ship.

    host:port:s        TLS          host:port:t        plain TCP
    host:port:s:SHA    TLS, and the SHA-256 of the certificate (DER) must be SHA

IPv6 addresses stand in brackets.  Plain TCP is for onion services, whose address
authenticates them; over an exit it must be allowed by the user.

The shipped list is a starting point for `names.electrum.servers`: volunteers run these
servers and come and go.  It names an operator where several entries share one, so that a
quorum asks different people where it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import ConfigError, IsoproxyError
from isoproxy.net.target import Target

_FORM: Final = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):(?P<port>[1-9][0-9]{0,4}):(?P<kind>[st])"
    r"(?::(?P<pin>[0-9A-Fa-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class NameServer:
    """One server; `pin` is the SHA-256 of its certificate's DER form, if known.

    Servers of one `operator` count once where others can be had.
    """

    target: Target
    tls: bool
    pin: bytes | None = None
    declared_operator: str = ""

    @property
    def label(self) -> str:
        """host:port, as it identifies the server everywhere."""
        return f"{self.target.host}:{self.target.port}"

    @property
    def operator(self) -> str:
        """Who runs it, as far as the list of servers says; else its host stands for them."""
        return self.declared_operator or self.target.host


def parse_server(text: str, operator: str = "") -> NameServer:
    """The server that `text` writes down; raises ConfigError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError("a name server is written host:port:s (TLS) or host:port:t (plain TCP)")
    try:
        target = Target.parse(match["host"].strip("[]"), int(match["port"]))
    except IsoproxyError:
        raise ConfigError("a name server's host or port is not valid") from None
    pin = bytes.fromhex(match["pin"]) if match["pin"] else None
    if pin is not None and match["kind"] != "s":
        raise ConfigError("a certificate's fingerprint needs TLS (host:port:s:fingerprint)")
    return NameServer(target, match["kind"] == "s", pin, operator)


def parse_servers(texts: Iterable[str], *, allow_plain: bool = False) -> tuple[NameServer, ...]:
    """Several servers, duplicates dropped.

    Raises ConfigError, also for plain TCP to anything but an onion service unless
    `allow_plain`: an exit could then read which names are asked for.
    """
    servers = {server.label: server for server in map(parse_server, texts)}
    for server in servers.values():
        if not (server.tls or server.target.is_onion or allow_plain):
            raise ConfigError(
                "plain TCP to a name server lets the exit read every name; use its TLS port "
                "(host:port:s), its onion service, or set names.electrum.allow_plain"
            )
    return tuple(servers.values())


_SHIPPED: Final[Sequence[tuple[str, str]]] = (
    ("i665jpwsq46zlsdbnj4axgzd3s56uzey5uhotsnxzsknzbn36jaddsid.onion:50002:s", "testls"),
    ("6cbn4rskfdr647otej7gpqlmpqcmj723vg2eoeuu7ljbwu6cpdebozyd.onion:50001:t", "testls"),
    ("h6qrnwxtwiaahsw4qhk2nbutswwb54vnqso6jrxeuk6nwtfbos7jkoqd.onion:50002:s", "s7r"),
    ("mqhok2edqcxdpklwovquuvvl2q5or4g2o777qwrinydgzfxjbixq76yd.onion:50002:s", "s7r"),
    ("wirg2tsto7rme7n26lkd3ivbvxmjyy2pktlozwjuep22jcsfsghfqbqd.onion:50002:s", "s7r"),
    ("quuzpffsddq3aim3gk4oiczzyt5okjjzf4zpe6okzo6qidao6rshynqd.onion:50002:s", "s7r"),
    ("nmc2.bitcoins.sk:57002:s", "bitcoins.sk"),
    ("electrumx.testls.space:50002:s", "testls"),
    (
        "23.158.233.10:50002:s:bb0b35e64235a794e157b69acd72da4ccc16a4d81d0ff6b1d8f7fdfc6cca6cba",
        "testls",
    ),
    ("162.212.154.52:50002:s", "testls"),
    ("electrum.nmc.ethicnology.com:50002:s", "ethicnology"),
    ("namecoin.stackwallet.com:57002:s", "stackwallet"),
)

SHIPPED: Final = tuple(parse_server(text, operator) for text, operator in _SHIPPED)
"""Main-network servers known in 2026."""
