"""A relay for tests of what hands streams to one, with asyncio alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from isoproxy.bitcoin.flow import ClosedBy, Flow


async def relay_stream(
    client: socket.socket, peer: socket.socket, first: bytes, flow: Flow
) -> ClosedBy:
    """Carry bytes until either side ends; closes both sockets.  Returns whose end it was."""
    loop = asyncio.get_running_loop()

    async def copy(source: socket.socket, sink: socket.socket, *, up: bool) -> None:
        data = first if up else b""
        with contextlib.suppress(OSError):
            while True:
                await loop.sock_sendall(sink, data)
                if up:
                    flow.relayed.bytes_up += len(data)
                else:
                    flow.relayed.bytes_down += len(data)
                if not (data := await loop.sock_recv(source, 65536)):
                    return

    ways = [
        asyncio.create_task(copy(client, peer, up=True)),
        asyncio.create_task(copy(peer, client, up=False)),
    ]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        return ClosedBy.CLIENT if ways[0] in done else ClosedBy.PEER
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        client.close()
        peer.close()
