"""Onion services of the configuration; one in front of a Bitcoin node that speaks v1."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from isoproxy.bitcoin.v1 import SERVICE_P2P_V2, VERSION, parse_version
from isoproxy.net.endpoint import Endpoint
from tests.kit.dial import Refused, dial
from tests.kit.service import publishing
from tests.kit.tornet import TorNetwork
from tests.unit.bitcoin.ends import V1End, V2End, send
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, short, v1
from tests.unit.bitcoin.test_v1 import version_payload

NODE = Endpoint.tcp("127.0.0.1", 8333)


async def stream(network: TorNetwork, host: str, port: int) -> socket.socket:
    """Through the network's client tor, within a minute of tries."""
    for attempt in range(30):
        try:
            sock = await asyncio.to_thread(
                dial, network.client.socks, host, port, user=b"peer", password=b"%d" % attempt
            )
        except (Refused, OSError):
            await asyncio.sleep(0.5)
        else:
            sock.setblocking(False)
            return sock
    raise AssertionError("the onion service was not reached")


@pytest.mark.parametrize("advertise", [True, False])
async def test_a_node_that_speaks_v1_is_reached_by_v2_over_an_onion_service(
    short_path: Path, tor_network: TorNetwork, advertise: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.setblocking(False)
        words = [f"127.0.0.1:{node.getsockname()[1]}", "--v2", "--port", "18333"]
        words += ["--network", "mainnet", *(["--advertise-v2"] if advertise else [])]
        async with publishing(short_path, tor_network.exits[1], *words) as published:
            host, _, port = published.address.rpartition(":")
            sock = await stream(tor_network, host, int(port))
            peer = V2End(sock, initiator=True)
            await peer.shake()
            await peer.send(LONG_VERSION)
            accepted, _ = await asyncio.get_running_loop().sock_accept(node)
            local = V1End(accepted)
            assert await local.message() == (VERSION, version_payload())
            await send(local.sock, HELLO + v1("ping", bytes(8)))
            services = parse_version((await peer.contents())[13:]).services
            assert bool(services & SERVICE_P2P_V2) is advertise
            assert await peer.contents() == short("ping", bytes(8))
            sock.close()
            local.sock.close()
