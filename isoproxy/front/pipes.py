"""Kernel pipes to splice through, borrowed while bytes are in flight.

Theory of operation
    `splice` moves bytes between two sockets through a pipe without copying them into
    this process.  Pipes are scarce: an unprivileged user may hold
    `fs.pipe-user-pages-soft` pages of them (64 MiB by default); beyond that new pipes are
    two pages small and not worth their system calls.  So a pipe belongs to a direction of
    a relay only while there are bytes in it, and goes back to the pool empty.

Invariants
    A pipe in the pool is empty; one that may not be is thrown away.  The pool never
    holds or lends more than `limit` pipes; when it has none to lend, the relay copies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PIPE_SIZES: Final = (1 << 20, 1 << 18)
"""Bytes asked of the kernel for a pipe, the best first."""
SMALLEST_USEFUL: Final = 1 << 16
USER_PAGES_SOFT: Final = Path("/proc/sys/fs/pipe-user-pages-soft")
PIPE_MAX_SIZE: Final = Path("/proc/sys/fs/pipe-max-size")


@dataclass(slots=True, eq=False)
class Pipe:
    """A pipe: descriptors, capacity in bytes, and how many bytes are in it."""

    read_fd: int
    write_fd: int
    capacity: int
    held: int = 0

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def affordable_pipes(budget_bytes: int, size: int, ceiling: int = 32) -> int:
    """How many pipes of `size` bytes half of the user's budget pays for."""
    return max(0, min(ceiling, budget_bytes // 2 // size))


class PipePool:
    """Pipes of one size; `borrow` and `give_back` cost no system call once it is warm."""

    def __init__(self, size: int, limit: int) -> None:
        self._size = size
        self._limit = limit
        self._lent = 0
        self._idle: list[Pipe] = []

    @classmethod
    def for_this_machine(cls, processes: int = 1) -> PipePool:
        """A pool within what the kernel allows an unprivileged user with so many pools."""
        pages = _read_number(USER_PAGES_SOFT, 16384)
        largest = _read_number(PIPE_MAX_SIZE, 1 << 20)
        budget = pages * os.sysconf("SC_PAGE_SIZE") if pages else 1 << 26
        budget //= processes
        for size in PIPE_SIZES:
            limit = affordable_pipes(budget, size)
            if size <= largest and limit >= 4:
                return cls(size, limit)
        return cls(PIPE_SIZES[-1], 0)

    @property
    def lent(self) -> int:
        return self._lent

    def borrow(self) -> Pipe | None:
        """An empty pipe, or None when there is none to lend."""
        if self._idle:
            self._lent += 1
            return self._idle.pop()
        if self._lent >= self._limit:
            return None
        pipe = self._open()
        if pipe is not None:
            self._lent += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Return a borrowed pipe; one with bytes left in it is closed."""
        self._lent -= 1
        if pipe.held:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Close the idle pipes; lent ones are closed when they come back."""
        self._limit = 0
        for pipe in self._idle:
            pipe.close()
        self._idle.clear()

    def _open(self) -> Pipe | None:
        try:
            read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, self._size)
        capacity = fcntl.fcntl(write_fd, fcntl.F_GETPIPE_SZ)
        pipe = Pipe(read_fd, write_fd, capacity)
        if capacity < SMALLEST_USEFUL:
            pipe.close()
            self._limit = self._lent + len(self._idle)
            return None
        return pipe


def _read_number(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return default
