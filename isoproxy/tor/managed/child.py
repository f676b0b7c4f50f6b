"""A program that we start and answer for: how it is started, and how it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

TERMINATE_S: Final = 5.0
"""How long a program may take to end after SIGTERM."""


class Readable(Protocol):
    """Where a child's output comes from."""

    async def read(self, n: int = -1, /) -> bytes: ...


class Child(Protocol):
    """A started program."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def stdout(self) -> Readable | None: ...
    async def wait(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


Spawn = Callable[[Sequence[str], Mapping[str, str]], Awaitable[Child]]


async def spawn_process(arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start a program with nothing of ours but its arguments; its output is piped to us.

    It gets a session of its own: a Ctrl-C at the terminal is for us to act on.
    """
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
    )
    return _Started(process)


class _Started:
    """A program in a session of its own, which is ended with all that it started.

    asyncio's own `terminate` looks first whether the program has ended. If it has, that look
    takes its exit code away from whoever waits for it, who is then told 255.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.stdout = process.stdout
        self.wait = process.wait

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def terminate(self) -> None:
        os.killpg(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)


async def end(child: Child) -> None:
    """End a child, first politely, and wait for it."""
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(TERMINATE_S):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
