"""A byte queue that is read from and written to in place.

Theory of operation
    One bytearray; the bytes queued are `data[start:end]`.  Bytes enter either through
    `space` and `added` (a socket's `recv_into`) or through `reserve` and `added` (a
    cipher's `encrypt_into`); they leave by moving `start`.  Nothing is copied but the
    tail that must move to the front, and that is at most one read's worth for each
    packet, because `space` offers no more than the packet awaited plus one read.

Invariants
    0 <= start <= end <= len(data).  Memory grows with what has arrived, not with what
    was announced: `space` is at most `AHEAD` or as much again as is queued.  A view that
    was handed out is valid until the next call of `space`, `reserve`, `append` or `trim`.
"""

from __future__ import annotations

from typing import Final

READ: Final = 64 * 1024
"""Bytes asked of the kernel at a time when no larger packet is awaited."""

AHEAD: Final = 256 * 1024
"""Bytes of room made in advance for an announced packet (as Bitcoin Core does)."""


class ByteQueue:
    """Bytes waiting, in one block of memory."""

    __slots__ = ("_expected", "data", "end", "start", "view")

    def __init__(self) -> None:
        self.data = bytearray()
        self.view = memoryview(self.data)
        self.start = 0
        self.end = 0
        self._expected = 0

    def __len__(self) -> int:
        return self.end - self.start

    def expect(self, size: int) -> None:
        """The packet at the head is `size` bytes long and not complete yet."""
        self._expected = size

    def space(self) -> memoryview:
        """Room for bytes to be received; tell `added` how many came."""
        queued = self.end - self.start
        wanted = READ
        if self._expected > queued:
            missing = self._expected - queued + READ
            if len(self.data) - self.end < missing <= len(self.data) - queued:
                self._make_room(missing)  # now, while little is there to be moved
            wanted = min(missing, max(queued, AHEAD, len(self.data) - self.end))
            self._expected = 0
        return self.reserve(wanted)

    def reserve(self, size: int, offset: int = 0) -> memoryview:
        """Exactly `size` bytes of room, from `offset` bytes behind the queue.

        `added` makes what is behind the queue part of it.
        """
        end = self.end
        if self.start == end:
            self.start = self.end = end = 0
        if len(self.data) - end < offset + size:
            self._make_room(offset + size)
            end = self.end
        return self.view[end + offset : end + offset + size]

    def _make_room(self, size: int) -> None:
        queued = self.end - self.start
        if queued + size <= len(self.data):
            self.view[:queued] = self.view[self.start : self.end]
        else:
            data = bytearray(queued + max(size, queued))
            view = memoryview(data)
            view[:queued] = self.view[self.start : self.end]
            self.data, self.view = data, view
        self.start, self.end = 0, queued

    def added(self, size: int) -> None:
        """The first `size` bytes of the room given out are filled."""
        self.end += size

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a copy of `data`."""
        self.reserve(len(data))[:] = data
        self.end += len(data)

    def peek(self) -> memoryview:
        """All that is queued, in place."""
        return self.view[self.start : self.end]

    def drop(self, size: int) -> None:
        """The first `size` bytes are done with."""
        self.start += size

    def take(self) -> bytes:
        """Empty the queue and return what was in it."""
        data = bytes(self.peek())
        self.start = self.end
        return data

    def trim(self) -> None:
        """Give the memory back if nothing is queued."""
        if self.start == self.end:
            self.data = bytearray()
            self.view = memoryview(self.data)
            self.start = self.end = 0
