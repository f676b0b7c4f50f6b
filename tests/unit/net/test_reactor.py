"""Events reach their handlers, edges are not lost, one defect stays one defect."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
from collections.abc import Callable, Coroutine

import pytest

from isoproxy.net.reactor import (
    PEER_SHUT,
    READABLE,
    WRITABLE,
    Handler,
    Reactor,
    ReactorLoop,
    SharedSelector,
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Recorder:
    """A handler that notes its events and may be told to fail."""

    def __init__(self, fails: bool = False) -> None:
        self.events: list[tuple[int, int]] = []
        self.fails = fails

    def on_events(self, fd: int, events: int) -> None:
        self.events.append((fd, events))
        if self.fails:
            raise ValueError("a defect")


def reactor_with(defects: list[tuple[Handler, Exception]]) -> Reactor:
    return Reactor(
        asyncio.get_running_loop(), lambda handler, error: defects.append((handler, error))
    )


def on_both_loops(play: Callable[[], Coroutine[None, None, None]]) -> Callable[[LoopFactory], None]:
    """Run a test where the reactor shares the loop's epoll, and where it has its own."""

    @pytest.mark.parametrize("factory", [ReactorLoop, asyncio.SelectorEventLoop])
    def test(factory: LoopFactory) -> None:
        with asyncio.Runner(debug=True, loop_factory=factory) as runner:
            runner.run(play())

    return test


async def _events_come_once_per_change() -> None:
    reactor = reactor_with([])
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        handler = Recorder()
        reactor.register(near.fileno(), handler)
        await asyncio.sleep(0.01)
        assert handler.events == []
        far.send(b"x")
        await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert handler.events == [(near.fileno(), READABLE)]
        far.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.01)
        assert handler.events[-1][1] & PEER_SHUT
        reactor.unregister(near.fileno())
        reactor.unregister(near.fileno())
        assert len(reactor) == 0
    reactor.close()
    reactor.close()


async def _a_descriptor_changes_hands_without_losing_events() -> None:
    reactor = reactor_with([])
    near, far = socket.socketpair()
    with near, far:
        first, second = Recorder(), Recorder()
        reactor.register(near.fileno(), first)
        far.send(b"x")
        await asyncio.sleep(0.01)
        reactor.set_handler(near.fileno(), second)
        far.send(b"x")
        await asyncio.sleep(0.01)
        assert len(first.events) == 1
        assert second.events[0][1] & READABLE
    reactor.close()


async def _one_handlers_defect_leaves_the_others_alone() -> None:
    defects: list[tuple[Handler, Exception]] = []
    reactor = reactor_with(defects)
    pairs = [socket.socketpair() for _ in range(2)]
    bad, good = Recorder(fails=True), Recorder()
    reactor.register(pairs[0][0].fileno(), bad)
    reactor.register(pairs[1][0].fileno(), good)
    for _, far in pairs:
        far.send(b"x")
    reactor.reschedule(bad, pairs[0][0].fileno())
    await asyncio.sleep(0.01)
    assert good.events
    assert {handler for handler, _ in defects} == {bad}
    assert len(defects) == 2
    reactor.close()
    for pair in pairs:
        for sock in pair:
            sock.close()


async def _another_turn_comes_after_the_others() -> None:
    reactor = reactor_with([])
    first, second = Recorder(), Recorder()
    reactor.reschedule(first, 1)
    reactor.reschedule(second, 2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (first.events, second.events) == ([(1, 0)], [(2, 0)])
    reactor.close()


async def _room_is_reported_of_those_who_wait_for_it() -> None:
    reactor = reactor_with([])
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        handler = Recorder()
        reactor.register(near.fileno(), handler)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += near.send(bytes(1 << 16))
        reactor.watch_writable(near.fileno())
        await asyncio.sleep(0.01)
        assert not any(events & WRITABLE for _, events in handler.events)
        while filled > 0:
            filled -= len(far.recv(1 << 16))
        await asyncio.sleep(0.01)
        assert handler.events[-1] == (near.fileno(), WRITABLE)
        # and at once where there is room already: the moment between refusal and request
        handler.events.clear()
        reactor.watch_writable(near.fileno())
        await asyncio.sleep(0.01)
        assert handler.events == [(near.fileno(), WRITABLE)]
        reactor.unregister(near.fileno())
    reactor.close()


test_events_come_once_per_change = on_both_loops(_events_come_once_per_change)
test_room_is_reported = on_both_loops(_room_is_reported_of_those_who_wait_for_it)
test_a_descriptor_changes_hands = on_both_loops(_a_descriptor_changes_hands_without_losing_events)
test_one_defect_stays_one = on_both_loops(_one_handlers_defect_leaves_the_others_alone)
test_another_turn_comes_after_the_others = on_both_loops(_another_turn_comes_after_the_others)


async def _sockets_of_both_kinds_live_side_by_side() -> None:
    """asyncio's own readers and writers work while the reactor is busy."""
    reactor = reactor_with([])
    near, far = socket.socketpair()
    with near, far:
        handler = Recorder()
        near.setblocking(False)
        reactor.register(near.fileno(), handler)
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for number in range(20):
            far.send(b"x")
            writer.write(b"%d\n" % number)
            assert await reader.readline() == b"%d\n" % number
        assert sum(1 for _, events in handler.events if events & READABLE) >= 2
        writer.close()
        await writer.wait_closed()
        server.close()
        await asyncio.sleep(0.01)
        reactor.forget(near.fileno())
        assert len(reactor) == 0
    reactor.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


test_sockets_of_both_kinds = on_both_loops(_sockets_of_both_kinds_live_side_by_side)


class _Pong:
    """Sends each byte back; does `work` at the tenth."""

    def __init__(self, sock: socket.socket, work: Callable[[], object]) -> None:
        self.sock, self.work = sock, work
        self.count = 0

    def on_events(self, fd: int, events: int) -> None:
        self.sock.send(self.sock.recv(1))
        self.count += 1
        if self.count == 10:
            self.work()


Work = Callable[[asyncio.AbstractEventLoop, Callable[[], object]], object]
ASYNCIOS_WORK: dict[str, Work] = {
    "callback": lambda loop, finish: loop.call_soon(finish),
    "timer": lambda loop, finish: loop.call_later(0.001, finish),
    "future": lambda loop, finish: finish(),
    "from a thread": lambda loop, finish: loop.call_soon_threadsafe(finish),
    "a timer set before": lambda loop, finish: None,
}


@pytest.mark.parametrize("kind", ASYNCIOS_WORK)
def test_asyncios_own_work_has_its_turn_while_sockets_never_rest(kind: str) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        reactor = reactor_with([])
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        if kind == "a timer set before":
            loop.call_later(0.02, finish)
        near, far = socket.socketpair()
        with near, far:
            for sock in (near, far):
                pong = _Pong(sock, lambda: ASYNCIOS_WORK[kind](loop, finish))
                reactor.register(sock.fileno(), pong)
            near.send(b"x")
            async with asyncio.timeout(10):
                await done
        reactor.close()

    with asyncio.Runner(loop_factory=ReactorLoop) as runner:
        runner.run(play())


def test_the_shared_selector_keeps_asyncios_contract() -> None:
    selector = SharedSelector()
    near, far = socket.socketpair()
    with near, far:
        key = selector.register(near, selectors.EVENT_READ, "data")
        with pytest.raises(KeyError):
            selector.register(near.fileno(), selectors.EVENT_READ)
        assert selector.get_key(near) == key
        assert dict(selector.get_map()) == {near: key}
        assert selector.select(0) == []
        assert selector.select(0.001) == []
        far.send(b"x")
        assert selector.select(None) == [(key, selectors.EVENT_READ)]
        both = selector.modify(near, selectors.EVENT_READ | selectors.EVENT_WRITE, "more")
        assert selector.select(-1) == [(both, selectors.EVENT_READ | selectors.EVENT_WRITE)]
        assert selector.modify(near, both.events, "data").data == "data"
        near.close()
    selector.unregister(key.fd)
    with pytest.raises(KeyError):
        selector.unregister(key.fd)
    selector.close()
