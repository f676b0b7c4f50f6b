"""nftables rules that send programs' connections to us, in a namespace or at a gateway.

Theory of operation
    Connections are redirected to a port of ours, wherever they are going, and queries to name
    servers over UDP to another one.  Name servers over TCP (53, and 853 with TLS) are refused,
    or names would be asked of them.  Nothing else passes: it is refused at once with an ICMP
    error, so that a program that tries UDP first goes on to TCP without waiting.

Specification: nft(8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from isoproxy.errors import OperationError

_IN_A_NAMESPACE: Final = """\
table inet isoproxy {{
    chain redirected {{
        type nat hook output priority -100; policy accept;
        udp dport 53 redirect to :53
        ip daddr 127.0.0.0/8 accept
        ip6 daddr ::1 accept
        tcp dport {{ 53, 853 }} accept
        meta l4proto tcp redirect to :{port}
    }}
    chain confined {{
        type filter hook output priority 0; policy drop;
        ct direction reply accept
        ct state related accept
        ip daddr 127.0.0.0/8 accept
        ip6 daddr ::1 accept
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
}}
"""

_AT_A_GATEWAY: Final = """\
# Connections of the machines behind {listed} go to isoproxy, and their DNS; what is for the
# gateway itself passes, all else they send is rejected.
# Load: nft -f FILE        Undo: nft delete table inet isoproxy_transparent
# Loading again replaces these rules, in one step.
table inet isoproxy_transparent
delete table inet isoproxy_transparent
table inet isoproxy_transparent {{
    chain redirected {{
        type nat hook prerouting priority -100; policy accept;
{dns}
        iifname {{ {interfaces} }} fib daddr type local accept
        iifname {{ {interfaces} }} tcp dport {{ 53, 853 }} accept
{tcp}
    }}
    chain confined {{
        type filter hook prerouting priority 0; policy accept;
        iifname {{ {interfaces} }} fib daddr type {{ local, broadcast, multicast }} accept
        iifname {{ {interfaces} }} meta l4proto tcp reject with tcp reset
        iifname {{ {interfaces} }} reject with icmpx admin-prohibited
    }}
}}
"""
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Where the connections of one family go, 4 or 6, and its queries if they are answered."""

    family: int
    tcp: int
    dns: int | None


def gateway_rules(interfaces: Sequence[str], ports: Sequence[GatewayPorts]) -> str:
    """For machines behind these interfaces.  Raises OperationError for what names none."""
    if not interfaces or not all(map(_INTERFACE.fullmatch, interfaces)):
        raise OperationError("this is not the name of a network interface")
    quoted = ", ".join(f'"{name}"' for name in interfaces)
    match = f"        iifname {{ {quoted} }} meta nfproto ipv"
    return _AT_A_GATEWAY.format(
        listed=", ".join(interfaces),
        interfaces=quoted,
        dns="\n".join(
            f"{match}{its.family} udp dport 53 redirect to :{its.dns}"
            for its in ports
            if its.dns is not None
        ),
        tcp="\n".join(
            f"{match}{its.family} meta l4proto tcp redirect to :{its.tcp}" for its in ports
        ),
    )


def namespace_rules(port: int) -> str:
    """For a namespace in which every address is local, with listeners at `port` of loopback."""
    return _IN_A_NAMESPACE.format(port=port)
