"""Both far ends of a Bitcoin flow through Tor: a v1 client, and peers good and bad."""

from __future__ import annotations

import contextlib
import socket
import socketserver
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Final

from isoproxy.bitcoin.bip324.transport import State, Transport
from isoproxy.bitcoin.inbound import Inbound, InboundSettings
from isoproxy.bitcoin.messages import REGTEST, padded
from isoproxy.bitcoin.options import TransportOptions
from isoproxy.bitcoin.v1 import HEADER_LENGTH, VERSION, V1Receiver, encode
from isoproxy.net.target import Target
from tests.interop.proxy import inbound, inbound_service
from tests.kit.servers import Server

AGENT: Final = b"/marked-client:1.0/"
"""What a v1 client's VERSION gives away in plaintext."""


def version(host: str = "203.0.113.5", port: int = 8333) -> bytes:
    """A VERSION message addressed to `host`."""
    address = ip_address(host)
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    there = bytes(8) + packed + port.to_bytes(2, "big")
    head = (70016).to_bytes(4, "little") + bytes(16) + there + bytes(26 + 8)
    return encode(REGTEST, VERSION, head + bytes([len(AGENT)]) + AGENT + bytes(5))


def message(name: str, payload: bytes = b"") -> bytes:
    return encode(REGTEST, padded(name), payload)


class V1Client:
    """A v1 program on a connected blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._receiver = V1Receiver(REGTEST)

    def hello(self) -> None:
        """Exchange VERSION and verack; a node may say in between what it can do."""
        self.sock.sendall(version())
        assert self.next()[0] == "version"
        self.sock.sendall(message("verack"))
        while self.next()[0] != "verack":
            pass

    def ping(self, nonce: bytes = b"12345678") -> None:
        """Be answered, whatever came before."""
        self.sock.sendall(message("ping", nonce))
        while self.next() != ("pong", nonce):
            pass

    def next(self) -> tuple[str, bytes]:
        """The next message; raises EOFError at the end, however it came."""
        while (found := self._receiver.next_message()) is None:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._receiver.queue.append(data)
        kind, start, end = found
        payload = bytes(self._receiver.queue.data[start + HEADER_LENGTH : end])
        return kind.rstrip(b"\0").decode(), payload

    def ended(self) -> bool:
        """Read on and close; True once the other side has closed."""
        with self.sock, contextlib.suppress(EOFError):
            while True:
                self.next()
        return True


class V1Node(Server):
    """A peer that speaks v1 and answers VERSION and pings; v2 it does not understand."""

    def __init__(self, host: str) -> None:
        super().__init__(host, _V1Node)


class _V1Node(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        head = _exactly(self.request, HEADER_LENGTH)
        if head[:4] != REGTEST.magic:
            return
        receiver = V1Receiver(REGTEST)
        receiver.queue.append(head)
        while True:
            while (found := receiver.next_message()) is not None:
                kind, start, end = found
                if kind == VERSION:
                    self.request.sendall(version() + message("verack"))
                elif kind == padded("ping"):
                    payload = bytes(receiver.queue.data[start + HEADER_LENGTH : end])
                    self.request.sendall(message("pong", payload))
            data = self.request.recv(65536)
            if not data:
                return
            receiver.queue.append(data)


@contextlib.contextmanager
def v2_node(host: str) -> Iterator[tuple[Inbound, int]]:
    """A peer that speaks v2 and tells its session IDs; gives its port."""
    with V1Node("127.0.0.1") as node:
        service = inbound_service(InboundSettings(REGTEST, Target.parse(*node.address)))
        with inbound(service, host) as port:
            yield service, port


class Sink(Server):
    """Reads what comes; says `answer` and closes once `enough` bytes are there."""

    def __init__(self, host: str, *, enough: int = 1, answer: bytes = b"") -> None:
        super().__init__(host, _Sink)
        self.enough, self.answer = enough, answer


class _Sink(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Sink)
        data = b""
        while len(data) < self.server.enough and (more := self.request.recv(65536)):
            data += more
        self.request.sendall(self.server.answer)


Behaviour = Callable[[socket.socket], None]


class Peer(Server):
    """A peer that does what `behaviour` does with each connection."""

    def __init__(self, host: str, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        super().__init__(host, _Peer)


class _Peer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Peer)
        self.server.behaviour(self.request)


def shaken(sock: socket.socket) -> Transport:
    """Complete a v2 handshake as the responder."""
    transport = TransportOptions().transport(REGTEST, initiator=False)
    while transport.state is not State.READY:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError
        output, _ = transport.receive(data)
        sock.sendall(output)
    return transport


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data
