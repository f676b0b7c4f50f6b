"""A network namespace that counts packets: what leaves loopback, and what isoproxy sends.

Theory of operation
    The whole run moves into a namespace of its own (`enter`), whose loopback is the private
    Tor network's, and which has a cable to nowhere with default routes: a packet that means
    to leave finds a way, and is counted.  isoproxy runs in a group of its own (`wrapper`),
    by which the kernel knows its sockets from everybody else's.

    beyond     packets of anybody that left by another interface than loopback
    elsewhere  connections of isoproxy to anything but Tor (and what `allowed` names), and
               its packets that are neither TCP nor UDP
    datagrams  isoproxy's UDP, apart from the answers of its DNS server
    port53     whatever isoproxy sends to port 53
    tor        connections of isoproxy to Tor: these show that it is watched at all
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Final

GROUP: Final = 47250
MUST_BE_ZERO: Final = ("beyond", "elsewhere", "datagrams", "port53")
_RULES: Final = """
table inet fire {{
    {counters}
    set allowed {{ type ipv4_addr . inet_service; elements = {{ {allowed} }} }}
    chain isoproxy {{
        meta l4proto {{ tcp, udp }} th dport 53 counter name port53
        meta l4proto udp udp sport {dns_port} return
        meta l4proto udp counter name datagrams return
        meta l4proto != tcp counter name elsewhere return
        tcp flags & (syn | ack) != syn return
        ip daddr . tcp dport @allowed counter name tor return
        counter name elsewhere
    }}
    chain output {{
        type filter hook output priority 0; policy accept;
        # the kernel's own neighbour discovery is nobody's leak
        oifname != "lo" meta l4proto != icmpv6 counter name beyond
        meta skgid {group} jump isoproxy
    }}
}}
"""
_CABLE: Final = (
    "link set lo up",
    "link add name out type veth peer name nowhere",
    "link set nowhere up",
    "link set out up",
    "addr add 198.51.100.1/24 dev out",
    "route add default via 198.51.100.2",
    "neigh add 198.51.100.2 dev out lladdr 02:00:00:00:00:02",
    "addr add 2001:db8::1/64 dev out nodad",
    "route add default via 2001:db8::2 dev out",
    "neigh add 2001:db8::2 dev out lladdr 02:00:00:00:00:02",
)


def missing() -> str:
    """What stands in the way; nothing if all is there."""
    if os.geteuid() != 0:
        return "packets are counted in a network namespace, which needs root"
    for name, package in (("ip", "iproute2"), ("nft", "nftables"), ("setpriv", "util-linux")):
        if shutil.which(name) is None:
            return f"{name} is needed: apt-get install {package}"
    probe = "ip link add name probe type veth peer name other && nft list tables"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", probe], capture_output=True, text=True, check=False
    )
    return f"no network namespace may be made here: {done.stderr.strip()}" * bool(done.returncode)


def enter(module: str, arguments: Sequence[str]) -> int:
    """Run a module in a new namespace, with the cable laid; returns its exit status."""
    script = " && ".join(f"ip {words}" for words in _CABLE) + ' && exec "$@"'
    command = ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-m", module]
    return subprocess.run([*command, *arguments], check=False).returncode


def wrapper() -> list[str]:
    """What to run isoproxy under, for its packets to be known."""
    return ["setpriv", f"--regid={GROUP}", "--clear-groups"]


def count(allowed: Iterable[tuple[str, int]], dns_port: int) -> None:
    """Begin to count, from zero."""
    names = (*MUST_BE_ZERO, "tor")
    rules = _RULES.format(
        counters="; ".join(f"counter {name} {{ }}" for name in names),
        allowed=", ".join(f"{host} . {port}" for host, port in allowed),
        dns_port=dns_port,
        group=GROUP,
    )
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def counted() -> dict[str, int]:
    """The packets so far."""
    words = ["nft", "-j", "list", "counters", "table", "inet", "fire"]
    said = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    counters = [item["counter"] for item in said["nftables"] if "counter" in item]
    return {counter["name"]: counter["packets"] for counter in counters}
