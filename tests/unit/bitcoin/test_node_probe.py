"""What the node is asked, how often, and what its answers mean."""

from __future__ import annotations

import asyncio
import socket

import pytest

from isoproxy.bitcoin import node_probe
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.node_probe import NodeProbe
from tests.unit.bitcoin.ends import V2End, pair, receive_exactly, send
from tests.unit.bitcoin.peers import HELLO


class Node:
    """A node that answers the first 64 bytes of each connection with `answer`, if any."""

    def __init__(self, answer: bytes | None = None, *, v2: bool = False) -> None:
        self._answer = answer
        self._v2 = v2
        self.asked = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.probe = NodeProbe(MAINNET, self.connect)

    async def connect(self) -> socket.socket:
        self.asked += 1
        far, near = pair()
        self._tasks.append(asyncio.create_task(self._serve(far)))
        return near

    async def _serve(self, sock: socket.socket) -> None:
        with sock:
            if self._v2:
                with pytest.raises(EOFError):
                    await V2End(sock).shake()
                return
            first = await receive_exactly(sock, 64)
            assert len(first) == 64
            assert first[:4] != MAINNET.magic
            if self._answer is None:
                await receive_exactly(sock, 1)  # silent until the other side leaves
            else:
                await send(sock, self._answer)

    async def over(self) -> None:
        await asyncio.gather(*self._tasks)


async def test_a_v2_node_answers_with_its_key() -> None:
    node = Node(v2=True)
    assert await node.probe.speaks_v2()
    await node.over()


@pytest.mark.parametrize("answer", [None, b"", b"\xf9\xbe", HELLO])
async def test_whatever_else_it_does_it_speaks_v1(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_probe, "ANSWER_S", 0.05)
    node = Node(answer)
    assert not await node.probe.speaks_v2()
    await node.over()


async def test_many_peers_ask_once_and_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(b"")
    assert await asyncio.gather(*(node.probe.speaks_v2() for _ in range(9))) == [False] * 9
    assert node.asked == 1
    monkeypatch.setattr(node_probe, "REMEMBERED_S", 0.0)
    again = Node(b"")
    for _ in range(2):
        await again.probe.speaks_v2()
    assert again.asked == 2
    await node.over()
    await again.over()


async def test_a_node_that_is_not_reached_is_asked_the_next_time() -> None:
    reached = False
    node = Node(v2=True)

    async def connect() -> socket.socket:
        if not reached:
            raise ConnectionRefusedError
        return await node.connect()

    probe = NodeProbe(MAINNET, connect)
    with pytest.raises(ConnectionRefusedError):
        await probe.speaks_v2()
    reached = True
    assert await probe.speaks_v2()
    await node.over()
