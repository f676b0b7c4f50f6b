"""Both far ends of a bridge on real sockets: a scripted v2 peer, a v1 client."""

from __future__ import annotations

import asyncio
import socket

from isoproxy.bitcoin.bip324.transport import State, Transport
from isoproxy.bitcoin.messages import MAINNET, Network
from isoproxy.bitcoin.options import TransportOptions
from isoproxy.bitcoin.v1 import HEADER_LENGTH, V1Receiver
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def narrow_tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking TCP sockets, the first of which takes little ahead of a read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        narrow = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    narrow.setblocking(False)
    other.setblocking(False)
    return narrow, other


async def speak_then_read(sock: socket.socket) -> bytes:
    """All that comes on `sock`, of one who begins to read late and speaks all the time."""
    speaking = asyncio.create_task(send(sock, bytes(4 << 20)))
    await asyncio.sleep(0.1)
    received = b""
    while data := await receive(sock):
        received += data
    sock.close()
    await asyncio.gather(speaking, return_exceptions=True)
    return received


def key(name: bytes = b"one", isolator: Isolator | None = None) -> IsolationKey:
    """The isolation key of a SOCKS user."""
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, name, b"", b"peer.example", 8333)
    return (isolator or Isolator()).key_for(ListenerRule(own_group("test")), stream)


async def receive(sock: socket.socket, size: int = 65536) -> bytes:
    """The next bytes, b"" at the end however it came."""
    async with asyncio.timeout(5):
        try:
            return await asyncio.get_running_loop().sock_recv(sock, size)
        except ConnectionResetError:
            return b""


async def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await receive(sock, size - len(data))):
        data += more
    return data


async def send(sock: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(5):
        await asyncio.get_running_loop().sock_sendall(sock, data)


class V2End:
    """A v2 node on a socket."""

    def __init__(
        self, sock: socket.socket, *, initiator: bool = False, network: Network = MAINNET
    ) -> None:
        self.sock = sock
        self.transport: Transport = TransportOptions().transport(network, initiator=initiator)
        self._contents: list[bytes] = []

    async def shake(self) -> None:
        """Complete the handshake."""
        if self.transport.state is State.KEY:
            await send(self.sock, self.transport.opening())
        while self.transport.state is not State.READY:
            await self._more()

    async def _more(self) -> None:
        data = await receive(self.sock)
        if not data:
            raise EOFError
        output, contents = self.transport.receive(data)
        self._contents += contents
        await send(self.sock, output)

    async def contents(self) -> bytes:
        """The next message; raises EOFError at the end."""
        while not self._contents:
            await self._more()
        return self._contents.pop(0)

    async def send(self, contents: bytes) -> None:
        await send(self.sock, self.transport.seal(contents))


class V1End:
    """A v1 program on a socket."""

    def __init__(self, sock: socket.socket, network: Network = MAINNET) -> None:
        self.sock = sock
        self._receiver = V1Receiver(network)

    async def message(self) -> tuple[bytes, bytes]:
        """The next message, type and payload; raises EOFError at the end."""
        while (message := self._receiver.next_message()) is None:
            data = await receive(self.sock)
            if not data:
                raise EOFError
            self._receiver.queue.append(data)
        kind, start, end = message
        return kind, bytes(self._receiver.queue.data[start + HEADER_LENGTH : end])
