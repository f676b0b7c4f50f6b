"""A managed tor joins a network, carries streams, and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from isoproxy.net.backoff import Backoff
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.process import ManagedTor
from isoproxy.tor.managed.program import Stage
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork
from tests.kit.waiting import until
from tests.unit.tor.scripted import open_stream


async def test_on_a_network_it_bootstraps_carries_streams_and_comes_back(
    short_path: Path, tor_network: TorNetwork
) -> None:
    lines = tor_network.joining_lines
    tor = ManagedTor(short_path, extra_torrc=lines, backoff=Backoff(0.1, 0.2))
    steps: list[Bootstrap] = []
    tor.on_progress(steps.append)
    with EchoServer(tor_network.server_ip) as server:
        async with asyncio.timeout(90):
            await tor.start()
            try:
                await tor.wait_ready()
                assert steps[-1].percent == 100
                assert [step.percent for step in steps] == sorted(step.percent for step in steps)
                await carries_a_stream(tor, server, b'"p\\w\xff\n')
                assert tor.pid is not None
                os.kill(tor.pid, signal.SIGKILL)
                await until(lambda: tor.state.stage is Stage.BACKING_OFF)
                await tor.wait_ready()
                await carries_a_stream(tor, server, b"again")
            finally:
                await tor.stop()


async def carries_a_stream(tor: ManagedTor, server: EchoServer, password: bytes) -> None:
    """A stream goes through, and its circuit is known by its credentials."""
    assert tor.socks.path is not None
    arguments = (tor.socks.path, b"<torS0X>0", password, server.host.encode(), server.port)
    assert await asyncio.to_thread(open_stream, *arguments) == b"hello"
    circuits = await tor.control.refresh_circuits()
    (mine,) = [circuit for circuit in circuits if circuit.password == password]
    assert (mine.username, mine.status, len(mine.path)) == (b"<torS0X>0", "BUILT", 3)
    listener = f'"unix:{tor.socks.path}"'.encode()
    assert await tor.control.getinfo("net/listeners/socks") == listener
    for kind in ("dns", "trans", "httptunnel"):
        assert await tor.control.getinfo(f"net/listeners/{kind}") == b""
