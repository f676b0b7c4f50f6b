"""Reading a connection's first bytes from its socket, no more than needed, in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Network, Networks
from isoproxy.bitcoin.v1 import (
    HEADER_LENGTH,
    PREFIX_LENGTH,
    VERSION,
    Detected,
    V1Receiver,
    Version,
    detect,
    parse_version,
)
from isoproxy.errors import LimitExceeded, RemoteProtocolError

MAX_VERSION: Final = 1024
"""Bytes of a VERSION message, header included; real ones have less than 400."""


async def read_opening(
    client: socket.socket,
    networks: Networks = KNOWN_NETWORKS,
    *,
    silence: float,
    patience: float,
    first: bytes = b"",
) -> tuple[bytes, Network | Detected]:
    """Read until it is clear whether the client speaks v1, and on which network.

    Returns what was read (at most 16 bytes beyond `first`) and the network, or NOT_V1;
    NEED_MORE if the client said nothing for `silence` seconds or closed.  A client that
    began like v1 has `patience` seconds for the rest; raises TimeoutError after that.
    """
    loop = asyncio.get_running_loop()
    found = detect(first, networks)
    try:
        async with asyncio.timeout(patience if first else silence) as limit:
            while found is Detected.NEED_MORE:
                data = await _receive(client, PREFIX_LENGTH - len(first))
                if not data:
                    return first, found
                if not first:
                    limit.reschedule(loop.time() + patience)
                first += data
                found = detect(first, networks)
    except TimeoutError:
        if first:
            raise
        # Silent was the client, unless this program was held up and did not hear it.
        with contextlib.suppress(BlockingIOError):
            first = client.recv(PREFIX_LENGTH)
        if first:
            return await read_opening(
                client, networks, silence=silence, patience=patience, first=first
            )
    return first, found


async def read_late_opening(
    client: socket.socket,
    peer: socket.socket,
    networks: Networks = KNOWN_NETWORKS,
    *,
    patience: float,
    idle: float,
) -> tuple[bytes, Network | Detected]:
    """The opening of a client that was silent so far, once `peer` is connected.

    Whoever speaks first decides, within `idle` seconds: a Bitcoin peer never does, so if it
    is the peer, nothing is read (NEED_MORE).  Raises TimeoutError.
    """
    loop, spoken = asyncio.get_running_loop(), asyncio.Event()
    for sock in (client, peer):
        loop.add_reader(sock, spoken.set)
    try:
        async with asyncio.timeout(idle):
            await spoken.wait()
    finally:
        for sock in (client, peer):
            loop.remove_reader(sock)
    return await read_opening(client, networks, silence=0, patience=patience)


async def _receive(client: socket.socket, size: int) -> bytes:
    """As `loop.sock_recv`, except that a timeout never takes bytes with it.

    When both are due in one turn of a loop that was held up, `sock_recv` has read already.
    """
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            return client.recv(size)
        readable = asyncio.Event()
        loop.add_reader(client, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(client)


async def read_version(
    client: socket.socket, first: bytes, network: Network, patience: float
) -> tuple[bytes, Version]:
    """Read the rest of the client's VERSION message; returns all bytes read, and it.

    Raises RemoteProtocolError for one that is too long or unreadable, TimeoutError.
    """
    loop = asyncio.get_running_loop()
    receiver = V1Receiver(network)
    receiver.queue.append(first)
    async with asyncio.timeout(patience):
        while (message := receiver.next_message()) is None:
            if receiver.corrupt or receiver.untyped:
                raise RemoteProtocolError("a client's first message is corrupt")
            if len(first) >= MAX_VERSION:
                raise LimitExceeded("a client's VERSION message is too long")
            data = await loop.sock_recv(client, MAX_VERSION - len(first))
            if not data:
                raise RemoteProtocolError("a client closed within its first message")
            first += data
            receiver.queue.append(data)
    kind, start, end = message
    if kind != VERSION:
        raise RemoteProtocolError("a client's first message is not VERSION")
    return first, parse_version(bytes(receiver.queue.data[start + HEADER_LENGTH : end]))
