"""Sending an unmodified client's connections to the proxy: nftables.

Theory of operation
    Programs of one system group have their connections to Bitcoin's ports redirected to
    the proxy on this machine; the kernel remembers where they were going, and the
    proxy asks it (`net.original_destination`).  Whatever else that group tries to send is
    rejected, so a client that ignores its settings leaks nothing, its DNS included, also
    where a resolver on this machine would ask on its behalf.  Each group has a table of its
    own: to load or to undo the rules of one leaves those of another alone.

Specification: nft(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from isoproxy.bitcoin.messages import KNOWN_NETWORKS
from isoproxy.errors import OperationError

DEFAULT_PORTS: Final = tuple(sorted({network.port for network in KNOWN_NETWORKS}))

_GROUP: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}|[0-9]{1,10}", re.ASCII)

_RULES: Final = """\
# Connections that programs of group {group} make to Bitcoin's ports go to isoproxy's
# proxy; all else they send, DNS included, is rejected.
# Load: nft -f FILE        Undo: nft delete table inet {table}
# Loading again replaces these rules, in one step and of this group alone.
table inet {table}
delete table inet {table}
table inet {table} {{
    chain to_proxy {{
        type nat hook output priority -100; policy accept;
        meta skgid {skgid} oifname != "lo" tcp dport {{ {ports} }} redirect to :{proxy}
    }}
    chain confine {{
        type filter hook output priority 0; policy accept;
        meta skgid {skgid} meta l4proto {{ tcp, udp }} th dport 53 reject
        meta skgid {skgid} ip daddr 127.0.0.0/8 accept
        meta skgid {skgid} ip6 daddr ::1 accept
        meta skgid {skgid} reject
    }}
}}
"""


def nft_rules(group: str, *, proxy_port: int = 1324, ports: Iterable[int] = ()) -> str:
    """The nftables rules for the system group `group` (a name or a number).

    `ports` are the destination ports to redirect, by default those of the known networks.
    Raises OperationError for what is not a group or a port.
    """
    chosen = sorted(set(ports)) or list(DEFAULT_PORTS)
    if _GROUP.fullmatch(group) is None:
        raise OperationError("this is not the name or number of a system group")
    if not all(0 < port <= 0xFFFF for port in (proxy_port, *chosen)):
        raise OperationError("a TCP port lies between 1 and 65535")
    return _RULES.format(
        group=group,
        table=f"isoproxy_bitcoin_{group}",
        skgid=group if group.isdigit() else f'"{group}"',
        ports=", ".join(map(str, chosen)),
        proxy=proxy_port,
    )
