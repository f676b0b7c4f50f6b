"""One machine's loopback port, carried to the same port of the test's own machine.

`python -m tests.network.whonix.tunnel PORT NAMESPACE`, started on the machine: it listens there and
then moves to the network that NAMESPACE (a path below /proc) names, to connect from there.
Thus a tor that must live beside the private network's relays is a port of the gateway.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys

_BLOCK = 1 << 16


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_BLOCK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _serve(listener: socket.socket, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        for end in (writer, back):
            end.close()

    server = await asyncio.start_server(carry, sock=listener)
    print("ready", flush=True)
    await server.serve_forever()


def main(port: int, namespace: str) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    descriptor = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), "setns")
    asyncio.run(_serve(listener, port))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
