"""A door stays open through fd_exhaustion, and leaves nothing behind when it closes."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from isoproxy.net.accept_loop import Connections


async def test_it_accepts_up_to_a_bound_and_ends_all() -> None:
    handled: list[socket.socket] = []
    asked: list[int] = []

    async def handle(sock: socket.socket) -> None:
        handled.append(sock)
        with sock:
            await asyncio.Event().wait()

    def full(count: int) -> bool:
        asked.append(count)
        return count >= 2

    door = Connections(handle, full)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        task = asyncio.create_task(door.serve(listener))
        clients = [await asyncio.open_connection(*listener.getsockname()) for _ in range(3)]
        assert await asyncio.wait_for(clients[2][0].read(), 5) == b""
        assert (len(door), asked) == (2, [0, 1, 2])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for reader, writer in clients:
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert len(door) == 0
        assert all(sock.fileno() < 0 for sock in handled)


async def test_who_is_there_when_it_stops_is_served_to_the_end() -> None:
    async def handle(sock: socket.socket) -> None:
        with sock:
            loop = asyncio.get_running_loop()
            while data := await loop.sock_recv(sock, 64):
                await loop.sock_sendall(sock, data)

    door = Connections(handle, lambda _: False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        task = asyncio.create_task(door.serve(listener))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        for word in (b"before", b"after"):
            writer.write(word)
            assert await asyncio.wait_for(reader.readexactly(len(word)), 5) == word
            await door.stop()
        _, late = await asyncio.open_connection(*listener.getsockname())
        late.write(b"too late")
        assert (len(door), task.done()) == (1, False)
        writer.close()
        await asyncio.wait_for(task, 5)
        late.close()


async def test_one_that_is_stopped_before_it_began_accepts_nobody() -> None:
    door = Connections(lambda sock: asyncio.sleep(0), lambda _: False)
    await door.stop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await asyncio.wait_for(door.serve(listener), 5)


@pytest.mark.virtual_clock
async def test_want_of_descriptors_pauses_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    accepted = asyncio.Event()
    outcomes: list[OSError | tuple[socket.socket, object]] = [
        OSError(errno.EMFILE, "none left"),
        OSError(errno.ECONNABORTED, "gone"),
        (near, None),
    ]

    async def sock_accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if not outcomes:
            await asyncio.Event().wait()
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async def handle(sock: socket.socket) -> None:
        sock.close()
        accepted.set()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    began = loop.time()
    with far, socket.socket() as listener:
        task = asyncio.create_task(Connections(handle, lambda _: False).serve(listener))
        await accepted.wait()
        assert loop.time() - began >= 0.5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
