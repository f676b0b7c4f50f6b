"""Pings a libp2p peer through Tor.

    python examples/libp2p/dialer.py MULTIADDR [--isolation ID] [--proxy IP:PORT] [--count N]

Prints a line for each ping.
"""

from __future__ import annotations

import argparse

import trio
from libp2p.host.ping import PingService
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr
from tor_transport import TorTransport, tor_host


async def main() -> None:
    parser = argparse.ArgumentParser(description="Ping a libp2p peer through isoproxy.")
    parser.add_argument("target", metavar="MULTIADDR")
    parser.add_argument("--isolation", metavar="ID")
    parser.add_argument("--proxy", metavar="ADDRESS", default="127.0.0.1:9250")
    parser.add_argument("--count", type=int, default=3)
    options = parser.parse_args()
    transport = TorTransport(isolation=options.isolation, proxy=options.proxy)
    host = tor_host(transport, listen=[])
    async with host.run([]):
        peer = info_from_p2p_addr(Multiaddr(options.target))
        await host.connect(peer)
        for milliseconds in await PingService(host).ping(peer.peer_id, options.count):
            print(f"ping {milliseconds} ms", flush=True)


if __name__ == "__main__":
    trio.run(main)
