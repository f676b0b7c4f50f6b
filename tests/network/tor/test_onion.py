"""Onion services of the real tor: they come back, and let in whom they should."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control, Phase
from isoproxy.tor.managed.process import ManagedTor
from isoproxy.tor.onion import (
    OnionPort,
    OnionService,
    OnionStage,
)
from tests.kit.onion import ClientKey
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork
from tests.kit.waiting import until
from tests.unit.tor.scripted import open_stream


class Uploads:
    """A tor on the private network that tells when its service's descriptor was taken."""

    def __init__(self, directory: Path, network: TorNetwork) -> None:
        endpoint = Endpoint.unix(str(directory / "control"))
        control = Control(endpoint, own=True, backoff=Backoff(0.05, 1.0))
        self.tor = ManagedTor(
            directory,
            extra_torrc=network.joining_lines,
            backoff=Backoff(0.1, 0.2),
            control=control,
        )
        self.count = 0
        control.on_upload(self._look)

    def _look(self, address: str) -> None:
        self.count += 1

    async def reach(self, address: str, wanted: bytes = b"hello") -> None:
        """Connect until it answers as `wanted`, each time on a circuit of its own.

        A descriptor of before a restart may be found first, and leads nowhere.
        """
        await until(lambda: self.count >= 4, 30)
        assert self.tor.socks.path is not None
        heard: list[bytes] = []
        async with asyncio.timeout(60):
            while wanted not in heard:
                password = b"%d" % len(heard)
                arguments = (self.tor.socks.path, b"<torS0X>0", password, address.encode(), 80)
                try:
                    heard.append(await asyncio.to_thread(open_stream, *arguments))
                except TimeoutError:
                    heard.append(b"")
                await asyncio.sleep(0.1)


async def test_a_real_service_comes_back_at_its_address(
    short_path: Path, tor_network: TorNetwork
) -> None:
    uploads = Uploads(short_path / "t", tor_network)
    tor = uploads.tor
    with EchoServer(tor_network.server_ip) as server:
        port = OnionPort(80, Endpoint.tcp(server.host, server.port))
        service = OnionService(tor.control, [port], key_file=short_path / "key")
        service.start()
        await tor.start()
        try:
            await tor.wait_ready()
            address = await service.wait_published()
            await uploads.reach(address)
            assert tor.pid is not None
            uploads.count = 0
            os.kill(tor.pid, signal.SIGKILL)
            await until(lambda: service.state.stage is OnionStage.WAITING)
            assert await service.wait_published() == address
            await tor.wait_ready()
            await uploads.reach(address)
            await service.withdraw()
            assert await tor.control.getinfo("onions/current") == b""
        finally:
            await service.withdraw()
            await tor.stop()


async def test_a_real_service_lets_in_only_its_clients(
    short_path: Path, tor_network: TorNetwork
) -> None:
    client = ClientKey.generate()
    uploads = Uploads(short_path, tor_network)
    tor = uploads.tor
    with EchoServer(tor_network.server_ip) as server:
        port = OnionPort(80, Endpoint.tcp(server.host, server.port))
        service = OnionService(tor.control, [port], clients=[client.service_form])
        service.start()
        await tor.start()
        try:
            await tor.wait_ready()
            address = await service.wait_published()
            await uploads.reach(address, b"\5\xf4")
            key = f"{address.removesuffix('.onion')} x25519:{client.client_form}"
            assert (await tor.control.message(f"ONION_CLIENT_AUTH_ADD {key}")).is_ok
            await uploads.reach(address)
        finally:
            await service.withdraw()
            await tor.stop()
    assert tor.control.state.phase is Phase.CLOSED
