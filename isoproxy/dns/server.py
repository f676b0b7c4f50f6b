"""The DNS server for `bit`: packets in, packets out, over UDP, TCP or a unix socket.

Theory of operation
    A UDP packet is parsed, counted against its client's rate, given its isolation key and
    answered at once where the answer is still kept; else a task resolves it.  What a packet
    means is remembered for its client, until its key is another.  TCP
    connections (RFC 7766) carry any number of queries, answered as they become ready.
    After a message that is not a query a connection takes no more: a web page can have a
    browser send whatever it likes, but not without an HTTP request in front.
    A unix socket speaks as TCP does, and its clients are told apart by user.

Invariants
    Memory is bounded: MAX_PENDING queries under way, MAX_CONNECTIONS connections with
    MAX_PIPELINED queries each, of one client at most a quarter of either.  What is too
    much is dropped (UDP) or refused (TCP); an idle connection makes room for a client
    that has fewer.  For these shares, and for the rates, clients are counted by
    `isolation.budget_of`: this machine is one, and 64 bits of IPv6 are.
    A UDP answer that goes beyond this machine is at most three times as long as its
    query: a forged sender's address wins nothing.  More comes over TCP.
    Neither names nor clients are logged.

Specification: RFC 1035 §4.2 (transport), RFC 7766 (TCP).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from isoproxy.dns.query import (
    MAX_MESSAGE,
    REFUSED,
    SERVFAIL,
    Query,
    Rejected,
    bare_response,
    parse_query,
)
from isoproxy.dns.rate_limit import RateLimit
from isoproxy.dns.responder import MAX_KEPT_PACKET, Responder
from isoproxy.dns.udp import UdpSocket
from isoproxy.errors import OperationError
from isoproxy.isolation import IsolationKey, budget_of, client_of_address, client_of_uid
from isoproxy.net import unix_socket
from isoproxy.net.endpoint import Endpoint, family_of
from isoproxy.net.unix_socket import SocketFile, peer_credentials

MAX_PENDING: Final = 1024
MAX_CONNECTIONS: Final = 128
MAX_PIPELINED: Final = 16
MAX_SEEN: Final = 1024
IDLE_S: Final = 15.0
AMPLIFICATION: Final = 3
_PORT_TRIES: Final = 16
_SOCKET_MODE: Final = 0o660


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Where to listen (port 0: any) and how many queries a second one client may ask."""

    endpoint: Endpoint
    queries_per_second: float = 100.0


class _Asked(NamedTuple):
    """A packet of one client's: the query in it, its key, and the longest answer to it."""

    query: Query
    key: IsolationKey
    limit: int


class DnsServer:
    """Serves what `responder` answers at the place that `settings` names."""

    def __init__(self, responder: Responder, settings: DnsSettings) -> None:
        self.responder: Final = responder
        self._settings: Final = settings
        # A forged sender over UDP must not use up what its owner may ask over TCP.
        self._udp_limit: Final = RateLimit(settings.queries_per_second)
        self._tcp_limit: Final = RateLimit(settings.queries_per_second)
        self._pending: Final[Counter[bytes]] = Counter()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._connections: Final[dict[asyncio.Task[None], bytes]] = {}
        self._busy: Final[set[asyncio.Task[None]]] = set()
        self._seen: Final[dict[tuple[bytes, bytes], _Asked]] = {}
        """What a packet means that a client sent before, all but its ID."""
        responder.on_new_keys(self._forget_old_keys)
        self._server: asyncio.Server | None = None
        self._udp: UdpSocket | None = None
        self._file: SocketFile | None = None
        self.endpoint = settings.endpoint

    async def open(self) -> None:
        """Listen; `endpoint` then has the port.  Raises OperationError."""
        try:
            if self.endpoint.path is not None:
                await self._open_unix(self.endpoint.path)
            else:
                await self._open_ip()
        except OSError as error:
            raise OperationError(
                f"the DNS server cannot listen at {self._settings.endpoint}: {error.strerror}; "
                "set dns.address to an address and port that are free and allowed"
            ) from None

    async def close(self) -> None:
        """Stop listening; end what is under way."""
        if self._udp is not None:
            self._udp.close()
        if self._server is not None:
            self._server.close()
        tasks = (*self._tasks, *self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._file is not None:
            self._file.remove()
        self._udp = self._server = None

    def datagram(self, packet: bytes, sender: tuple[Any, ...]) -> None:
        """One UDP packet: answered now, later or never."""
        client = _client(sender[0], *sender[3:])
        seen = self._seen.get((client, packet[2:]))
        if seen is not None and self._is_current(seen):
            if self._udp_limit.allows(_budget(client), time.monotonic()):
                self._answer(seen, packet, client, sender)
            return
        query = parse_query(packet)
        if query is None or not self._udp_limit.allows(_budget(client), time.monotonic()):
            return
        if isinstance(query, Rejected):
            self._send(query.response, sender)
            return
        limit = query.udp_limit
        if not _is_loopback(sender[0]):
            limit = min(limit, AMPLIFICATION * len(packet))
        asked = _Asked(query, self.responder.key_for(client, query), limit)
        if len(packet) <= MAX_KEPT_PACKET:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen[client, packet[2:]] = asked
        self._answer(asked, packet, client, sender)

    def _answer(self, asked: _Asked, packet: bytes, client: bytes, sender: tuple[Any, ...]) -> None:
        query, key, limit = asked
        response = self.responder.kept(packet, key, limit)
        if response is None:
            query = replace(query, id=int.from_bytes(packet[:2]))
            response = self.responder.refusal(query)
        if response is not None:
            self._send(response, sender)
        elif self._has_room(client):
            self._spawn(self._answer_datagram(query, packet, client, key, limit, sender), client)

    async def _open_ip(self) -> None:
        stream, datagram = _bind(self.endpoint)
        host, port = stream.getsockname()[:2]
        self.endpoint = Endpoint.tcp(host, port)
        self._server = await asyncio.start_server(self._accept, sock=stream, limit=MAX_MESSAGE)
        self._udp = UdpSocket(datagram, self.datagram)

    async def _open_unix(self, path: str) -> None:
        sock, self._file = unix_socket.listen(path, _SOCKET_MODE)
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=MAX_MESSAGE)

    async def _answer_datagram(
        self,
        query: Query,
        packet: bytes,
        client: bytes,
        key: IsolationKey,
        limit: int,
        sender: tuple[Any, ...],
    ) -> None:
        response, may_be_kept = await self.responder.respond(query, client, key, limit)
        if may_be_kept:
            self.responder.keep(packet, response, key, limit)
        self._send(response, sender)

    def _send(self, response: bytes, receiver: tuple[Any, ...]) -> None:
        if self._udp is not None:
            self._udp.send(response, receiver)

    def _forget_old_keys(self) -> None:
        for sent in [sent for sent, its in self._seen.items() if not self._is_current(its)]:
            del self._seen[sent]

    def _is_current(self, asked: _Asked) -> bool:
        return self.responder.is_current(asked.key)

    def _has_room(self, client: bytes) -> bool:
        return len(self._tasks) < MAX_PENDING and self._pending[_budget(client)] < MAX_PENDING // 4

    def _spawn(self, work: Any, client: bytes) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name="dns query")
        budget = _budget(client)
        self._tasks.add(task)
        self._pending[budget] += 1

        def done(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._pending[budget] -= 1
            if not self._pending[budget]:
                del self._pending[budget]

        task.add_done_callback(done)
        return task

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        client = _client_of(writer)
        if client is None or not self._make_room(_budget(client)):
            writer.close()
            return
        self._connections[task] = _budget(client)
        try:
            await self._serve(reader, writer, client)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # gone, silent for too long, or we are closing
        finally:
            self._connections.pop(task, None)
            self._busy.discard(task)
            writer.close()

    def _make_room(self, client: bytes) -> bool:
        """Whether one more connection of `client`'s budget may stay.

        Where all are taken, the oldest on which nothing is under way goes, of whoever has
        most of them: else a few addresses could keep everybody out by being silent.
        """
        counts = Counter(self._connections.values())
        if counts[client] >= MAX_CONNECTIONS // 4:
            return False
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        idle = {
            task: counts[other]
            for task, other in self._connections.items()
            if task not in self._busy and counts[other] > counts[client] + 1
        }
        if not idle:
            return False
        task = max(idle, key=idle.__getitem__)
        del self._connections[task]
        task.cancel()
        return True

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bytes
    ) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            with contextlib.suppress(asyncio.IncompleteReadError):  # it closed its half
                await self._read_queries(reader, writer, client, tasks)
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tuple(tasks):
                task.cancel()

    async def _read_queries(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: bytes,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        """Start to answer what comes, in `tasks`, up to the first message that is not a query."""
        slots = asyncio.Semaphore(MAX_PIPELINED)
        connection = asyncio.current_task()
        assert connection is not None

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not tasks:
                self._busy.discard(connection)

        while True:
            length = await _length(reader, tasks)
            async with asyncio.timeout(IDLE_S):
                packet = await reader.readexactly(length)
            await slots.acquire()
            query = parse_query(packet)
            if isinstance(query, Rejected):
                await _write(writer, query.response)
            if not isinstance(query, Query):
                return
            response = self._refused_stream(query, client)
            if response is not None:
                slots.release()
                await _write(writer, response)
                continue
            task = self._spawn(self._answer_stream(query, client, writer, slots), client)
            tasks.add(task)
            self._busy.add(connection)
            task.add_done_callback(done)

    def _refused_stream(self, query: Query, client: bytes) -> bytes | None:
        """The response where nothing is resolved."""
        if not self._tcp_limit.allows(_budget(client), time.monotonic()):
            return bare_response(query, REFUSED)
        if not self._has_room(client):
            return bare_response(query, SERVFAIL)
        return self.responder.refusal(query)

    async def _answer_stream(
        self, query: Query, client: bytes, writer: asyncio.StreamWriter, slots: asyncio.Semaphore
    ) -> None:
        try:
            key = self.responder.key_for(client, query)
            response, _ = await self.responder.respond(query, client, key, MAX_MESSAGE)
            try:
                await _write(writer, response)
            except (OSError, TimeoutError):  # what is not read must not pile up
                writer.transport.abort()
        finally:
            slots.release()


async def _length(reader: asyncio.StreamReader, tasks: set[asyncio.Task[None]]) -> int:
    """The length of the next message; TimeoutError if nothing comes and nothing is due."""
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                return int(length)
        except TimeoutError:
            if not tasks:
                raise


async def _write(writer: asyncio.StreamWriter, response: bytes) -> None:
    writer.write(struct.pack("!H", len(response)) + response)
    async with asyncio.timeout(IDLE_S):
        await writer.drain()


_client: Final = lru_cache(maxsize=1024)(client_of_address)
_budget: Final = lru_cache(maxsize=1024)(budget_of)


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_loopback


def _client_of(writer: asyncio.StreamWriter) -> bytes | None:
    """The client at the other end: its address, or its user on a unix socket; None if gone."""
    sock = writer.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        peer = writer.get_extra_info("peername")
        return None if peer is None else _client(peer[0], *peer[3:])
    return client_of_uid(peer_credentials(sock).uid)


def _bind(endpoint: Endpoint) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket at the same address and port."""
    assert endpoint.host is not None, "a DNS server is somewhere"
    for left in reversed(range(_PORT_TRIES)):
        stream = _socket(endpoint.host, socket.SOCK_STREAM)
        try:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind((endpoint.host, endpoint.port))
            datagram = _socket(endpoint.host, socket.SOCK_DGRAM)
            try:
                datagram.bind((endpoint.host, stream.getsockname()[1]))
            except OSError:
                datagram.close()
                raise
        except OSError as error:
            stream.close()
            if endpoint.port or not left or error.errno != errno.EADDRINUSE:
                raise
        else:
            return stream, datagram
    raise AssertionError("the last try returned or raised")


def _socket(host: str, kind: socket.SocketKind) -> socket.socket:
    return socket.socket(family_of(host), kind | socket.SOCK_NONBLOCK)
