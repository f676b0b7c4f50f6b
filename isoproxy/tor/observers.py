"""Observers of what Tor does: callbacks on the event loop, one kind of value each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from isoproxy.observe.log import logger

Value = TypeVar("Value")
_log = logger("tor")


class Observers(Generic[Value]):
    """Callbacks that receive each value, in the order in which they were added.

    A callback that raises is a defect of its owner: it is logged by the exception's type,
    and the others receive the value all the same.
    """

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[Value], None]] = {}

    def add(self, callback: Callable[[Value], None]) -> Callable[[], None]:
        """Call `callback` with each value from now on; the result ends that."""
        token = object()
        self._callbacks[token] = callback

        def remove() -> None:
            self._callbacks.pop(token, None)

        return remove

    async def first(self, wanted: Callable[[Value], bool]) -> Value:
        """The next value that is `wanted`."""
        found: asyncio.Future[Value] = asyncio.get_running_loop().create_future()

        def look(value: Value) -> None:
            if not found.done() and wanted(value):
                found.set_result(value)

        remove = self.add(look)
        try:
            return await found
        finally:
            remove()

    def notify(self, value: Value) -> None:
        """Call every callback; callbacks may be added and removed meanwhile."""
        for token, callback in list(self._callbacks.items()):
            if token not in self._callbacks:
                continue
            try:
                callback(value)
            except Exception as error:
                _log.err("observer_failed", error=error)
