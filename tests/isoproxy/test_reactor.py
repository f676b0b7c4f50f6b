"""Events reach their handlers, edges are not lost, one defect stays one defect."""

from __future__ import annotations

import asyncio
import socket

import pytest

from isoproxy.reactor import PEER_SHUT, READABLE, WRITABLE, Deadlines, Handler, Reactor


class Recorder:
    """A handler that notes its events and may be told to fail."""

    def __init__(self, fails: bool = False) -> None:
        self.events: list[tuple[int, int]] = []
        self.fails = fails

    def on_events(self, fd: int, events: int) -> None:
        self.events.append((fd, events))
        if self.fails:
            raise ValueError("a defect")


class Alarm:
    def __init__(self) -> None:
        self.rang = 0

    def on_deadline(self) -> None:
        self.rang += 1


def reactor_with(defects: list[tuple[Handler, Exception]]) -> Reactor:
    return Reactor(
        asyncio.get_running_loop(), lambda handler, error: defects.append((handler, error))
    )


async def test_events_come_once_per_change() -> None:
    reactor = reactor_with([])
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        handler = Recorder()
        reactor.register(near.fileno(), handler)
        await asyncio.sleep(0.01)
        assert [events & WRITABLE for _, events in handler.events] == [WRITABLE]
        handler.events.clear()
        far.send(b"x")
        await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert len(handler.events) == 1
        assert handler.events[0][1] & READABLE
        far.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.01)
        assert handler.events[-1][1] & PEER_SHUT
        reactor.unregister(near.fileno())
        reactor.unregister(near.fileno())
        assert len(reactor) == 0
    reactor.close()
    reactor.close()


async def test_a_descriptor_changes_hands_without_losing_events() -> None:
    reactor = reactor_with([])
    near, far = socket.socketpair()
    with near, far:
        first, second = Recorder(), Recorder()
        reactor.register(near.fileno(), first)
        await asyncio.sleep(0.01)
        reactor.hand_over(near.fileno(), second)
        far.send(b"x")
        await asyncio.sleep(0.01)
        assert len(first.events) == 1
        assert second.events[0][1] & READABLE
    reactor.close()


async def test_one_handlers_defect_leaves_the_others_alone() -> None:
    defects: list[tuple[Handler, Exception]] = []
    reactor = reactor_with(defects)
    pairs = [socket.socketpair() for _ in range(2)]
    bad, good = Recorder(fails=True), Recorder()
    reactor.register(pairs[0][0].fileno(), bad)
    reactor.register(pairs[1][0].fileno(), good)
    reactor.again(bad, pairs[0][0].fileno())
    await asyncio.sleep(0.01)
    assert good.events
    assert {handler for handler, _ in defects} == {bad}
    assert len(defects) == 2
    reactor.close()
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_another_turn_comes_after_the_others() -> None:
    reactor = reactor_with([])
    first, second = Recorder(), Recorder()
    reactor.again(first, 1)
    reactor.again(second, 2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (first.events, second.events) == ([(1, 0)], [(2, 0)])
    reactor.close()


@pytest.mark.virtual_clock
async def test_deadlines_are_met_late_by_one_tick_at_most_and_never_early() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    soon, later, never = Alarm(), Alarm(), Alarm()
    deadlines.set(soon, 2.5)
    deadlines.set(later, 100)
    deadlines.set(never, 5)
    deadlines.clear(never)
    deadlines.clear(never)
    await asyncio.sleep(2.4)
    assert soon.rang == 0
    await asyncio.sleep(1.2)
    assert soon.rang == 1
    assert len(deadlines) == 1
    deadlines.set(later, 1)
    await asyncio.sleep(2.1)
    assert (later.rang, never.rang, len(deadlines)) == (1, 0, 0)
    deadlines.set(soon, 1)
    deadlines.close()
    await asyncio.sleep(5)
    assert soon.rang == 1
