"""nftables rules that send programs' connections to us, in a namespace or at a gateway.

Theory of operation
    Connections are redirected to a port of ours, wherever they are going, and queries to name
    servers over UDP to another one.  Name servers over TCP (53, and 853 with TLS) are refused,
    or names would be asked of them.  Nothing else passes: it is refused at once with an ICMP
    error, so that a program that tries UDP first goes on to TCP without waiting.

Specification: nft(8).
"""

from __future__ import annotations

from typing import Final

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


def namespace_rules(port: int) -> str:
    """For a namespace in which every address is local, with listeners at `port` of loopback."""
    return _IN_A_NAMESPACE.format(port=port)
