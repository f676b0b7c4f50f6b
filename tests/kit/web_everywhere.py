"""What a SocksPort serves to have a web server at every host."""

from __future__ import annotations

import asyncio

from isoproxy.socks import Request, Server


async def web(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
) -> None:
    """A web server at every host, whose page says what it was asked for."""
    writer.write(server.succeed())
    if not server.leftover:
        await reader.readuntil(b"\r\n\r\n")
    page = f"{request.host!r} {request.port}\n".encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + page)
