"""Who wants to hear of something: callbacks on the event loop, one kind of value each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
_log = logging.getLogger(__name__)


class Observers(Generic[Value]):
    """Callbacks that are told of a value, in the order in which they were added.

    A callback that raises is a defect of its owner's: it is logged by type, and the
    others are told all the same.
    """

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[Value], None]] = {}

    def add(self, callback: Callable[[Value], None]) -> Callable[[], None]:
        """Tell `callback` from now on; call what is returned to end that."""
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
        """Tell everybody; those who come or go meanwhile do not disturb it."""
        for token, callback in list(self._callbacks.items()):
            if token not in self._callbacks:
                continue
            try:
                callback(value)
            except Exception as error:
                _log.error("an observer failed with %s", type(error).__name__)
