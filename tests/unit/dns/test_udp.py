"""UdpSocket: all that has come at once, and nothing after the end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from isoproxy.dns.udp import MOST_PER_TURN, UdpSocket
from tests.kit.waiting import until


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    return sock


async def test_what_has_come_is_taken_in_order_and_answered() -> None:
    sock, client, got = bound(), bound(), list[bytes]()

    def received(packet: bytes, sender: tuple[Any, ...]) -> None:
        got.append(packet)
        server.send(packet[::-1], sender)

    sent = [b"%03d" % number for number in range(2 * MOST_PER_TURN)]
    for packet in sent:
        client.sendto(packet, sock.getsockname())
    server = UdpSocket(sock, received)
    await until(lambda: len(got) == len(sent))
    assert got == sent
    assert [client.recv(10) for _ in sent] == [packet[::-1] for packet in sent]
    server.close()
    client.close()


async def test_a_flood_leaves_other_work_its_turn() -> None:
    sock, client, got, seen = bound(), bound(), list[bytes](), list[int]()
    server = UdpSocket(sock, lambda packet, sender: got.append(packet))
    for _ in range(3 * MOST_PER_TURN):
        client.sendto(b"x", sock.getsockname())
    while len(got) < 3 * MOST_PER_TURN:
        await asyncio.sleep(0)
        seen.append(len(got))
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) == (
        MOST_PER_TURN
    )
    server.close()
    client.close()


async def test_after_the_end_nothing_comes_and_nothing_goes() -> None:
    sock, client, got = bound(), bound(), list[bytes]()

    def received(packet: bytes, sender: tuple[Any, ...]) -> None:
        got.append(packet)
        server.close()
        server.send(b"too late", sender)

    server = UdpSocket(sock, received)
    client.sendto(b"one", sock.getsockname())
    client.sendto(b"two", sock.getsockname())
    await until(lambda: got)
    server.close()
    assert got == [b"one"]
    assert sock.fileno() == -1
    client.close()


async def test_a_receiver_that_is_gone_ends_nothing() -> None:
    sock, client, gone, got = bound(), bound(), bound(), list[bytes]()
    server = UdpSocket(sock, lambda packet, sender: got.append(packet))
    address = gone.getsockname()
    gone.close()
    server.send(b"to nobody", address)
    client.sendto(b"still here", sock.getsockname())
    await until(lambda: got)
    assert got == [b"still here"]
    server.close()
    client.close()
