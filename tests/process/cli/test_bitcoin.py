"""`isoproxy bitcoin proxy` as a real process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from isoproxy.socks import Request, Server
from tests.kit.service import running
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.unit.bitcoin.peers import HELLO


async def taciturn(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
) -> None:
    """A peer that takes the stream and says nothing: what is carried to it is not over."""
    writer.write(server.succeed())
    while await reader.read(65536):
        pass


async def test_port_1324_without_a_configuration(tmp_path: Path) -> None:
    """A v1 client is carried in v2, and a status tells of it."""
    async with SocksPort(taciturn) as port:
        settings = [
            *("tor.mode=system", f"tor.socks={port.endpoint}", "tor.control=none"),
            "bitcoin.proxy.0.address=127.0.0.1:0",
            "bitcoin.proxy.0.peer=peer.example:8333",
        ]
        arguments = [word for setting in settings for word in ("--set", setting)]
        async with running(tmp_path, *arguments, run=("bitcoin", "proxy")) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
            writer.write(HELLO)
            await until(lambda: len(port.requests) == 1, 10)
            (request,) = port.requests
            assert (request.host, request.port) == (b"peer.example", 8333)
            status = json.loads((await service.ask("status", "--json")).out)
            assert status["listeners"] == []
            (flow,) = status["bitcoin"]["flows"]
            assert (flow["network"], flow["transport"]) == ("mainnet", "detecting")
            writer.close()
            assert await service.stop() == 0
            assert not await reader.read()
