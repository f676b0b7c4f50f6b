"""What surrounds isoproxy in `benchmarks.flood`, in processes of their own.

Theory of operation
    `tor_and_services` stands in for Tor's SocksPort: it answers CONNECT at once and is then
    the far end itself.  A connection to a name server it passes on, accepted, to
    `name_servers`, so that a flood takes no time of what echoes.  `name_servers` has three
    Electrum servers over one chain; the last of them floods when it is told to, either
    isoproxy or `reader`, a program that is not isoproxy and reads the same lines.

    The far end answers the first bytes of a stream with the moment (`time.monotonic`, the
    same clock in all processes) at which Tor heard of the stream: when the answer for its name
    was there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Coroutine
from typing import Any, Final

from isoproxy.socks import Server
from isoproxy.socks.wire import Command
from tests.kit.electrum_server import ElectrumServer
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.onion_address import onion_address

NAME: Final = "flood"
ADDRESS: Final = "192.0.2.1"
PORT: Final = 50001
HOSTS: Final = [onion_address(bytes([number]) * 32) for number in (1, 2, 3)]
"""The name servers, all reached as onion services; the last is the hostile one."""
MOMENT: Final = struct.Struct("<d")
CALM, PROXY, READER = "calm", "proxy", "reader"
"""What the hostile server is told: nobody, isoproxy, or the other program is flooded."""
_TICK_S: Final = 0.01
_NOTE: Final = (
    json.dumps(
        {
            "jsonrpc": "2.0",
            "method": "blockchain.scripthash.subscribe",
            "params": ["5a" * 32, "a5" * 32],
        }
    ).encode()
    + b"\n"
)


def run(work: Coroutine[Any, Any, None]) -> None:
    """The whole life of one of the processes here."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work)
    os._exit(0)


async def tor_and_services(listener: socket.socket, servers: socket.socket) -> None:
    """Tor's SocksPort at `listener`; connections to name servers go over `servers`."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    tasks = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        task = asyncio.create_task(_serve(sock, time.monotonic(), servers))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _serve(sock: socket.socket, heard: float, servers: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    codec, request = Server(require_auth=True), None
    with sock, contextlib.suppress(OSError):
        while request is None:
            data = await loop.sock_recv(sock, 4096)
            if not data:
                return
            request = codec.receive(data)
            await loop.sock_sendall(sock, codec.data_to_send())
        await loop.sock_sendall(sock, codec.succeed())
        if request.command is not Command.CONNECT:
            return
        host = request.host.decode()
        if host in HOSTS:
            socket.send_fds(servers, [bytes([HOSTS.index(host)])], [sock.fileno()])
            return
        data = codec.leftover
        while data := data or await loop.sock_recv(sock, 4096):
            await loop.sock_sendall(sock, MOMENT.pack(heard))
            data = b""


async def name_servers(
    accepted: socket.socket, listener: socket.socket, orders: socket.socket
) -> None:
    """Three Electrum servers for what is `accepted`; the last floods as `orders` say.

    An order is one of the words above, and how many bytes/s to send over each connection; the
    answer is how many connections isoproxy has to the hostile server, and how many bytes went
    out to each side so far.  `reader` connects to `listener`.
    """
    chain = RegtestChain.recorded()
    chain.update(f"d/{NAME}".encode(), json.dumps({"ip": ADDRESS}).encode())
    chain.mine_empty(20)
    servers = [ElectrumServer(chain) for _ in HOSTS]
    sides: dict[str, set[asyncio.StreamWriter]] = {CALM: set(), PROXY: set(), READER: set()}
    sent = dict.fromkeys(sides, 0)
    flooded, rate = CALM, 0.0
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()

    async def serve(index: int, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        if index == len(servers) - 1:
            sides[PROXY].add(writer)
        await servers[index].serve(reader, writer)
        sides[PROXY].discard(writer)

    def take() -> None:
        data, fds, _, _ = socket.recv_fds(accepted, 1, 1)
        task = asyncio.create_task(serve(data[0], socket.socket(fileno=fds[0])))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def side_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sides[READER].add(writer)
        with contextlib.suppress(OSError):
            await reader.read()
        sides[READER].discard(writer)
        writer.close()

    def obey() -> None:
        nonlocal flooded, rate
        word, _, number = orders.recv(100).decode().partition(" ")
        flooded, rate = word, float(number)
        orders.send(json.dumps([len(sides[PROXY]), sent[PROXY], sent[READER]]).encode())

    loop.add_reader(accepted, take)
    loop.add_reader(orders, obey)
    await asyncio.start_server(side_reader, sock=listener)
    due, owed = loop.time(), 0.0
    while True:
        owed += rate * _TICK_S / len(_NOTE)
        piece, owed = _NOTE * int(owed), owed % 1
        for writer in list(sides[flooded]):
            if writer.transport.get_write_buffer_size() <= len(piece) and not writer.is_closing():
                writer.write(piece)
                sent[flooded] += len(piece)
        due = max(due + _TICK_S, loop.time())
        await asyncio.sleep(due - loop.time())


async def reader(address: tuple[str, int], connections: int) -> None:
    """A program that is not isoproxy: reads lines of JSON over that many connections."""

    async def read() -> None:
        lines, writer = await asyncio.open_connection(*address)
        while line := await lines.readline():
            json.loads(line)
        writer.close()

    await asyncio.gather(*(read() for _ in range(connections)))
