"""Readiness of thousands of sockets at the price of one: edge-triggered epoll in asyncio.

Theory of operation
    asyncio's `add_reader` and `add_writer` cost a system call for each change of
    interest and a handle, a context and a turn of the loop for each event.  A relay of
    many short connections spends more on that than on its work.  The reactor owns one
    epoll descriptor; each socket is registered once, for everything, edge-triggered; the
    epoll descriptor itself (which is readable while events wait) is what asyncio
    watches.  Events go straight to a bound method.

    Edge-triggered means: an event says that something *changed*.  A handler must go on
    until the kernel says EAGAIN, or remember that it stopped early and ask for another
    turn with `again`.  A handler may get an event that is not meant for it (a descriptor
    number is reused within one batch): it must take events as hints.

Invariants
    One handler's defect does not stop the others: its exception goes to `on_defect`
    together with the handler, which is then the caller's to abort.  Everything runs in
    the loop's thread; no handler blocks.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
PEER_SHUT: Final = select.EPOLLRDHUP
BROKEN: Final = select.EPOLLHUP | select.EPOLLERR

_EVERYTHING: Final = READABLE | WRITABLE | PEER_SHUT | select.EPOLLET
_BATCH: Final = 512


class Handler(Protocol):
    """What a descriptor is registered with."""

    def on_events(self, fd: int, events: int) -> None:
        """Something changed at `fd`; `events` is an epoll mask."""


class Reactor:
    """One epoll descriptor under one asyncio loop.

    `on_defect(handler, error)` is told of an exception that escaped a handler.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_defect: Callable[[Handler, Exception], None],
    ) -> None:
        self._loop = loop
        self._on_defect = on_defect
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._again: deque[tuple[Handler, int]] = deque()
        self._again_scheduled = False
        loop.add_reader(self._epoll.fileno(), self._dispatch)

    def __len__(self) -> int:
        """How many descriptors are registered."""
        return len(self._handlers)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def register(self, fd: int, handler: Handler) -> None:
        """Watch `fd` for everything; raises OSError when the kernel refuses."""
        self._epoll.register(fd, _EVERYTHING)
        self._handlers[fd] = handler

    def register_listener(self, fd: int, handler: Handler) -> None:
        """Watch a listening socket, level-triggered: unaccepted clients keep reporting."""
        self._epoll.register(fd, READABLE)
        self._handlers[fd] = handler

    def hand_over(self, fd: int, handler: Handler) -> None:
        """Give a registered descriptor to another handler, without a system call."""
        self._handlers[fd] = handler

    def unregister(self, fd: int) -> None:
        """Forget `fd`; call it before the descriptor is closed.  Unknown ones are ignored."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def again(self, handler: Handler, fd: int) -> None:
        """Call `handler.on_events(fd, 0)` after the others had their turn."""
        self._again.append((handler, fd))
        if not self._again_scheduled:
            self._again_scheduled = True
            self._loop.call_soon(self._take_turns)

    def close(self) -> None:
        """Stop dispatching and free the epoll descriptor; sockets stay their owners'."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._handlers.clear()
        self._again.clear()

    def _dispatch(self) -> None:
        handlers = self._handlers
        for fd, events in self._epoll.poll(0, _BATCH):
            handler = handlers.get(fd)
            if handler is None:
                continue
            try:
                handler.on_events(fd, events)
            except Exception as error:
                self._on_defect(handler, error)

    def _take_turns(self) -> None:
        self._again_scheduled = False
        for _ in range(len(self._again)):
            handler, fd = self._again.popleft()
            try:
                handler.on_events(fd, 0)
            except Exception as error:
                self._on_defect(handler, error)


class Expires(Protocol):
    """What a deadline is set for."""

    def on_deadline(self) -> None:
        """The deadline has passed; it is forgotten, and may be set anew."""


class Deadlines:
    """Coarse deadlines for many things, without a timer each.

    They are looked through every `tick_s` seconds while there are any; a deadline is met
    up to one tick late, never early.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float = 1.0) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._due: dict[Expires, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def set(self, who: Expires, seconds: float) -> None:
        """Call `who.on_deadline()` in `seconds`, in place of an earlier deadline of its."""
        self._due[who] = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def clear(self, who: Expires) -> None:
        self._due.pop(who, None)

    def close(self) -> None:
        """Forget everything."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        for who in [who for who, due in self._due.items() if due <= now]:
            if self._due.pop(who, None) is not None:
                who.on_deadline()
        if self._due and self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)
