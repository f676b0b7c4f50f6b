"""Reading a connection's first bytes from its socket, in time, before there is another one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, TypeVar

V = TypeVar("V")
_CHUNK: Final = 4096


async def read_until(
    sock: socket.socket,
    judge: Callable[[bytes], V | None],
    *,
    silence: float,
    handshake_timeout: float,
    first: bytes = b"",
) -> tuple[bytes, V | None]:
    """Read until `judge` has a verdict on all that was read; returns both.

    The verdict is None if the other side said nothing for `silence` seconds, or closed.
    Where it has begun it has `handshake_timeout` seconds for the rest; raises TimeoutError
    after that, and what `judge` raises.
    """
    loop = asyncio.get_running_loop()
    verdict = judge(first)
    try:
        async with asyncio.timeout(handshake_timeout if first else silence) as limit:
            while verdict is None:
                data = await _receive(sock)
                if not data:
                    return first, None
                if not first:
                    limit.reschedule(loop.time() + handshake_timeout)
                first += data
                verdict = judge(first)
    except TimeoutError:
        if first:
            raise
        # The other side was silent, unless this program was held up and did not hear it.
        with contextlib.suppress(BlockingIOError):
            first = sock.recv(_CHUNK)
        if first:
            return await read_until(
                sock, judge, silence=silence, handshake_timeout=handshake_timeout, first=first
            )
    return first, verdict


async def _receive(sock: socket.socket) -> bytes:
    """As `loop.sock_recv`, except that a timeout never takes bytes with it.

    When both are due in one turn of a loop that was held up, `sock_recv` has read already.
    """
    while True:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            return sock.recv(_CHUNK)
        await readable(sock)


async def readable(sock: socket.socket) -> None:
    """Return when there is something to be read, or the end."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(sock)
