"""Readiness of thousands of sockets at the price of one: edge-triggered epoll in asyncio.

Theory of operation
    asyncio's `add_reader` and `add_writer` cost a system call for each change of
    interest and a handle, a context and a turn of the loop for each event.  A relay of
    many short connections spends more on that than on its work.  Here each socket is
    registered once, edge-triggered, and its events go straight to a bound method.  Room
    for sending is reported only of sockets that had none once (`watch_writable`): most never
    do, and of a unix socket each read of its peer would be an event.

    On a `ReactorLoop` the sockets of its first reactor live in the very epoll descriptor
    that asyncio waits on: its selector hands asyncio's events to asyncio and ours to
    their handlers, and waits again by itself until asyncio has something to do.  Any
    other reactor has an epoll descriptor of its own, which is readable while events wait
    and is watched by asyncio: one more system call a turn.

    Edge-triggered means: an event says that something *changed*.  A handler must go on
    until the kernel says EAGAIN, or remember that it stopped early and ask for another
    turn with `reschedule`.  A handler may get an event that is not meant for it (a descriptor
    number is reused within one batch): it must take events as hints.

Invariants
    One handler's defect does not stop the others: its exception goes to `on_defect`
    together with the handler, which is then the caller's to abort.  Everything runs in
    the loop's thread; no handler blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import select
import selectors
import socket
import sys
import termios
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
PEER_SHUT: Final = select.EPOLLRDHUP
BROKEN: Final = select.EPOLLHUP | select.EPOLLERR

_ARRIVALS: Final = READABLE | PEER_SHUT | select.EPOLLET
_EVERYTHING: Final = _ARRIVALS | WRITABLE
_BATCH: Final = 512


class Handler(Protocol):
    """What a descriptor is registered with."""

    def on_events(self, fd: int, events: int) -> None:
        """Something changed at `fd`; `events` is an epoll mask."""


def unsent(sock: socket.socket) -> int:
    """Bytes sent that the other end's machine has not taken yet; over a unix socket those
    (and what the kernel needs to keep them) that the other end has not read."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


OnDefect = Callable[[Handler, Exception], None]
_Arguments = TypeVarTuple("_Arguments")


class SharedSelector(selectors.BaseSelector):
    """asyncio's selector over an epoll descriptor that it shares with a reactor.

    Events of descriptors in `foreign` go to their handlers from within `select`; all others
    are reported as `selectors.EpollSelector` reports them.
    """

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.foreign: dict[int, Handler] = {}
        self.on_defect: OnDefect | None = None
        """Set by the one reactor that shares the descriptor; a second has its own."""
        self.asyncio_is_wanted = False
        """Set while `select` runs: a callback waits, or a timer may be due before its end."""
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"descriptor {fd} is already registered")
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self.epoll.register(fd, _interest(events))
        self._keys[fd] = key
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys.pop(fd)
        with contextlib.suppress(OSError):
            # Closed already, and so unregistered; asyncio's own selector ignores it too.
            self.epoll.unregister(fd)
        return key

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        old = self._keys[fd]
        if events != old.events:
            self.epoll.modify(fd, _interest(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        left = timeout if timeout is None else max(timeout, 0.0)
        until = math.inf if left is None else monotonic() + left
        self.asyncio_is_wanted = False
        ready: list[tuple[selectors.SelectorKey, int]] = []
        handler_of = self.foreign.get
        while True:
            events = self.epoll.poll(left, _BATCH)
            for fd, mask in events:
                handler = handler_of(fd)
                if handler is not None:
                    try:
                        handler.on_events(fd, mask)
                    except Exception as error:
                        assert self.on_defect is not None
                        self.on_defect(handler, error)
                elif (key := self._keys.get(fd)) is not None:
                    happened = selectors.EVENT_WRITE if mask & ~READABLE else 0
                    if mask & ~WRITABLE:
                        happened |= selectors.EVENT_READ
                    ready.append((key, happened & key.events))
            if ready or self.asyncio_is_wanted or not events:
                return ready
            if left is not None:
                left = until - monotonic()
                if left <= 0:
                    return ready

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return {key.fileobj: key for key in self._keys.values()}

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def close(self) -> None:
        self.epoll.close()
        self._keys.clear()
        self.foreign.clear()


def _interest(events: int) -> int:
    interest = READABLE if events & selectors.EVENT_READ else 0
    return interest | (WRITABLE if events & selectors.EVENT_WRITE else 0)


class ReactorLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose epoll descriptor a reactor shares."""

    time = staticmethod(monotonic)  # asyncio's own calls it, in Python

    def __init__(self) -> None:
        self.shared = SharedSelector()
        super().__init__(self.shared)

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self.shared.asyncio_is_wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.shared.asyncio_is_wanted = True
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        self.shared.asyncio_is_wanted = True
        super().stop()


class Reactor:
    """Edge-triggered readiness under one asyncio loop.

    `on_defect(handler, error)` is told of an exception that escaped a handler.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_defect: Callable[[Handler, Exception], None],
    ) -> None:
        self.loop = loop
        self._on_defect = on_defect
        self._again: deque[tuple[Handler, int]] = deque()
        self._again_scheduled = False
        self._shared: SharedSelector | None = None
        self._own = False
        if isinstance(loop, ReactorLoop) and loop.shared.on_defect is None:
            self._shared = loop.shared
            self._epoll = loop.shared.epoll
            self._handlers = loop.shared.foreign
            loop.shared.on_defect = on_defect
        else:
            self._own = True
            self._epoll = select.epoll()
            self._handlers = {}
            loop.add_reader(self._epoll.fileno(), self._dispatch)

    def __len__(self) -> int:
        """How many descriptors are registered."""
        return len(self._handlers)

    def register(self, fd: int, handler: Handler) -> None:
        """Watch `fd` for what arrives; raises OSError when the kernel refuses."""
        self._epoll.register(fd, _ARRIVALS)
        self._handlers[fd] = handler

    def watch_writable(self, fd: int) -> None:
        """Report from now on, and at once if it is so, that registered `fd` takes bytes."""
        self._epoll.modify(fd, _EVERYTHING)

    def register_listener(self, fd: int, handler: Handler) -> None:
        """Watch a listening socket, level-triggered: unaccepted clients keep reporting.

        Of several processes that watch it, not all are woken for one client.
        """
        self._epoll.register(fd, READABLE | select.EPOLLEXCLUSIVE)
        self._handlers[fd] = handler

    def set_handler(self, fd: int, handler: Handler) -> None:
        """Give a registered descriptor to another handler, without a system call."""
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Forget `fd`, whose only descriptor is closed next: the kernel forgets it too."""
        self._handlers.pop(fd, None)

    def unregister(self, fd: int) -> None:
        """Forget `fd`, which stays open.  Unknown ones are ignored."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def reschedule(self, handler: Handler, fd: int) -> None:
        """Call `handler.on_events(fd, 0)` after the others had their turn."""
        self._again.append((handler, fd))
        if not self._again_scheduled:
            self._again_scheduled = True
            self.loop.call_soon(self._take_turns)

    def close(self) -> None:
        """Stop dispatching and free the epoll descriptor; sockets stay their owners'."""
        if self._shared is not None:
            for fd in list(self._handlers):
                with contextlib.suppress(OSError):
                    # A descriptor that is closed already is not in there any more.
                    self.unregister(fd)
            self._shared.on_defect = None
            self._shared = None
        elif self._own:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._own = False
        self._handlers = {}
        self._again.clear()

    def _dispatch(self) -> None:
        for fd, events in self._epoll.poll(0, _BATCH):
            handler = self._handlers.get(fd)
            if handler is not None:
                self._call(handler, fd, events)

    def _take_turns(self) -> None:
        self._again_scheduled = False
        for _ in range(len(self._again)):
            handler, fd = self._again.popleft()
            self._call(handler, fd, 0)

    def _call(self, handler: Handler, fd: int, events: int) -> None:
        try:
            handler.on_events(fd, events)
        except Exception as error:
            self._on_defect(handler, error)
