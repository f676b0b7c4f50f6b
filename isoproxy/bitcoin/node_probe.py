"""Whether the local node speaks v2 itself: asked of it, and remembered.

Theory of operation
    A key is sent to the node, as a v2 initiator does (BIP324, "Handshake").  A v2 node answers
    with its own key at once.  A v1 node takes it for a message of another network and closes,
    or stays silent; one that speaks first says a VERSION header of the network.

Invariants
    However many peers come, the node is asked once per `REMEMBERED_S`; what could not be asked
    is not remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from isoproxy.bitcoin.messages import Network
from isoproxy.bitcoin.options import TransportOptions
from isoproxy.bitcoin.sniff import MAGIC_LENGTH
from isoproxy.bitcoin.v1 import PREFIX_LENGTH

REMEMBERED_S: Final = 3600.0
ANSWER_S: Final = 1.0
"""Seconds that the node may take to answer; it is local."""


class NodeProbe:
    """Asks the node of `network` to which `connect` opens connections."""

    def __init__(self, network: Network, connect: Callable[[], Awaitable[socket.socket]]) -> None:
        self._network = network
        self._connect = connect
        self._asking = asyncio.Lock()
        self._answer = False
        self._until = -math.inf

    async def speaks_v2(self) -> bool:
        """Whether the node speaks v2; raises OSError where it is not reached."""
        now = asyncio.get_running_loop().time
        async with self._asking:
            if now() >= self._until:
                self._answer = await self._ask()
                self._until = now() + REMEMBERED_S
            return self._answer

    async def _ask(self) -> bool:
        opening = (
            TransportOptions(garbage=(0, 0)).transport(self._network, initiator=True).opening()
        )
        loop, said = asyncio.get_running_loop(), b""
        with contextlib.closing(await self._connect()) as node:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await loop.sock_sendall(node, opening)
                    while len(said) < PREFIX_LENGTH:
                        data = await loop.sock_recv(node, PREFIX_LENGTH)
                        if not data:
                            return False
                        said += data
            except (OSError, TimeoutError):
                return False
        return said[:MAGIC_LENGTH] != self._network.magic
