"""Runs a name plugin of anybody's, and lets nothing it does harm more than its own names.

Theory of operation
    A supervisor starts the program, waits for its INIT, and reads its answers; when the
    program ends, whatever was asked of it fails at once and it is started anew after a
    wait that doubles.  `resolve` writes one RESOLVE line and waits, with a deadline, for
    the answer; when its caller goes away, or the deadline passes, it writes CANCEL.

Invariants
    Queries under way, bytes not yet taken by the program, lines that mean nothing, and
    lines of its standard error that are logged are all bounded.  A program that greets
    wrongly, talks nonsense beyond a budget, or answers nothing while query after query
    runs out of time is ended and started anew.  A result is a host of a strict grammar or
    no result.  What the program prints is logged without anything that could be a name.

Specification: Tor proposal 279 §2.4-2.9.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from isoproxy.errors import ErrorKind, NamingError, PolicyRefusal
from isoproxy.net.backoff import Backoff
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from prop279.protocol import (
    VERSION,
    Cancel,
    Environment,
    Init,
    LineSplitter,
    PluginAnswer,
    Resolve,
    Resolved,
    Status,
    parse_answer,
    write_command,
)

_log = logger("prop279")

_READ: Final = 64 * 1024
_KINDS: Final = {
    Status.NOT_OURS: ErrorKind.NAME_NEVER_SENT_TO_TOR,
    Status.ABSENT: ErrorKind.NAME_ABSENT,
    Status.TIMEOUT: ErrorKind.NAME_TIMEOUT,
}
_IDENTIFYING: Final = re.compile(rb"[^\x20-\x7e]|[^ ]*[0-9.:/\\\"'@_=-][^ ]*")


_FAILED: Final = (
    "The name plugin failed to find the name: it does not exist, which some plugins do not tell "
    "apart, or it cannot be looked up now."
)
"""ncdns and ncprop279 with a library of 2022 or later say so of absent names, too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plugin may use up; times in seconds, sizes in bytes."""

    queries: int = 1024
    unread: int = 256 * 1024
    nonsense: int = 1000
    silent_timeouts: int = 3
    stderr_lines: int = 50
    init_timeout: float = 30.0
    query_timeout: float = 60.0
    end_timeout: float = 3.0
    first_wait: float = 0.25
    longest_wait: float = 30.0


class _Unfit(Exception):
    """The program does not behave as a plugin; the text says how."""


class PluginHost:
    """One supervised plugin; an async context manager.

    command      the program and its arguments
    environment  what it is told at its start
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Environment | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = environment or Environment()
        self._limits = limits or Limits()
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Resolved]] = {}
        self._held: dict[int, bytes] = {}  # lines of queries until the program is ready
        self._ready = False
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._asked = self._nonsense = self._silent_timeouts = 0
        self.starts = 0
        """How often the program was started."""

    @property
    def pending(self) -> int:
        """Queries under way."""
        return len(self._pending)

    @property
    def is_ready(self) -> bool:
        """Whether the program has greeted and runs."""
        return self._ready

    async def __aenter__(self) -> Self:
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            if not self._supervisor.cancelled():
                self._supervisor.result()  # a defect of ours: it is raised here

    async def resolve(self, name: str, isolation: bytes) -> Target:
        """The host that `name` stands for, as a Target with port 0.

        Raises NamingError: absent, not the plugin's, out of time, or a failure of its.
        """
        if len(self._pending) >= self._limits.queries:
            raise NamingError(kind=ErrorKind.BUSY)
        query = next(self._numbers)
        try:
            line = write_command(Resolve(query, name.encode("ascii"), isolation))
        except ValueError:
            raise NamingError(kind=ErrorKind.NAME_SYNTAX) from None
        future = asyncio.get_running_loop().create_future()
        self._pending[query] = future
        self._held[query] = line
        try:
            self._send_held()
            async with asyncio.timeout(self._limits.query_timeout):
                answer = await future
        except TimeoutError:
            self._count_timeout(asked=query not in self._held)
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None
        finally:
            del self._pending[query]
            asked = self._held.pop(query, None) is None
            if asked and (not future.done() or future.cancelled()):
                with contextlib.suppress(NamingError):
                    self._write(write_command(Cancel(query)))
        return self._host_of(answer)

    def _host_of(self, answer: Resolved) -> Target:
        if answer.status != Status.SUCCESS:
            kind = _KINDS.get(Status(answer.status)) if answer.status in _STATUSES else None
            if kind is None:
                raise NamingError(_FAILED, kind=ErrorKind.NAME_UNVERIFIABLE)
            raise NamingError(kind=kind)
        try:
            return Target.parse(answer.result, 0)
        except PolicyRefusal:
            raise NamingError(kind=ErrorKind.NAME_INVALID_VALUE) from None

    def _send_held(self) -> None:
        """Write what has to be asked, if the program is ready for it."""
        while self._ready and self._held:
            query = next(iter(self._held))
            try:
                self._write(self._held.pop(query))
            except NamingError as error:
                future = self._pending[query]
                if not future.done():  # else who asked has gone away
                    future.set_exception(error)

    def _count_timeout(self, *, asked: bool) -> None:
        if not asked:
            return
        self._silent_timeouts += 1
        if self._silent_timeouts == self._limits.silent_timeouts:
            _log.warn("plugin_answers_nothing", action="killed")
            self._signal(signal.SIGKILL)

    def _write(self, line: bytes) -> None:
        stdin = self._process.stdin if self._process is not None else None
        if stdin is None or stdin.is_closing():
            raise NamingError(kind=ErrorKind.NAME_BACKEND_DOWN)
        if stdin.transport.get_write_buffer_size() > self._limits.unread:
            raise NamingError(kind=ErrorKind.BUSY)
        self._asked += 1
        stdin.write(line)

    def _signal(self, number: signal.Signals) -> None:
        """To the program and to all that it started, which may outlive it (a shell's child)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    # -- the program's life

    async def _supervise(self) -> None:
        backoff = Backoff(self._limits.first_wait, self._limits.longest_wait)
        while True:
            if await self._one_life():
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def _one_life(self) -> bool:
        """Run the program until it ends; whether it was of any use."""
        self.starts += 1
        self._asked = self._nonsense = self._silent_timeouts = 0
        useful = False
        try:
            self._process = process = await self._spawn()
        except OSError as error:
            _log.err("plugin_cannot_be_started", reason=os.strerror(error.errno or 0))
            self._fail_all()
            return False
        errors = asyncio.create_task(self._read_errors(process))
        try:
            useful = await self._read_answers(process)
            _log.warn("plugin_ended")
        except _Unfit as unfit:
            _log.warn("plugin_misbehaves", how=str(unfit), action="killed")
        finally:
            self._ready = False
            self._fail_all()
            await self._end(process)
            errors.cancel()
            await asyncio.wait({errors})
            # What got away may hold its pipes: they are closed on our side all the same.
            process._transport.close()  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        return useful

    async def _spawn(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, **self._environment.variables()},
            start_new_session=True,
        )

    async def _read_answers(self, process: Process) -> bool:
        """Deal with all that the program says; returns at its end whether it answered."""
        assert process.stdout is not None
        splitter = LineSplitter()
        lines = await self._greeting(process, splitter)
        self._ready, answered = True, False
        self._send_held()
        while True:
            for line in lines:
                answered |= self._take(parse_answer(line))
            data = await process.stdout.read(_READ)
            if not data:
                return answered
            lines = splitter.feed(data)

    async def _greeting(self, process: Process, splitter: LineSplitter) -> list[bytes]:
        """Wait for INIT; the lines that came with it."""
        assert process.stdout is not None
        lines: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.init_timeout):
                while not lines:
                    data = await process.stdout.read(_READ)
                    if not data:
                        raise _Unfit("it ended without INIT")
                    lines = splitter.feed(data)
        except TimeoutError:
            raise _Unfit("it sent no INIT in time") from None
        init = parse_answer(lines[0])
        if not isinstance(init, Init):
            raise _Unfit("its first line is not INIT")
        if init.version != VERSION or init.status:
            raise _Unfit(f"INIT says status {init.status}: {scrub(init.message)}")
        return lines[1:]

    def _take(self, answer: PluginAnswer | None) -> bool:
        """Hand an answer to its waiting query; whether there was one."""
        future = self._pending.get(answer.query) if isinstance(answer, Resolved) else None
        if future is None or future.done():
            self._nonsense += 1
            if self._nonsense > self._limits.nonsense + self._asked:
                raise _Unfit("it says more than it was asked")
            return False
        assert isinstance(answer, Resolved)
        self._silent_timeouts = 0
        future.set_result(answer)
        return True

    def _fail_all(self) -> None:
        self._held.clear()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(NamingError(kind=ErrorKind.NAME_BACKEND_DOWN))

    async def _read_errors(self, process: Process) -> None:
        """Log the first lines of standard error; read and drop the others."""
        assert process.stderr is not None
        splitter, logged = LineSplitter(), 0
        while data := await process.stderr.read(_READ):
            for line in splitter.feed(data)[: self._limits.stderr_lines - logged]:
                logged += 1
                _log.info("plugin_says", text=scrub(line))

    async def _end(self, process: Process) -> None:
        """Let the program end by itself, then make it."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(self._limits.end_timeout):
                self._signal(signal.SIGTERM)
                while await process.stdout.read(_READ):
                    pass  # until all that it started have ended
                await process.wait()
        except TimeoutError:
            pass  # it is deaf
        finally:
            self._signal(signal.SIGKILL)
            await process.wait()
            self._process = None  # its number may soon be another's


_STATUSES: Final = frozenset(int(status) for status in Status)


def scrub(line: bytes) -> str:
    """The words of `line` that cannot be a name, an address, an ID or a path."""
    return _IDENTIFYING.sub(b"[scrubbed]", line[:200]).decode("ascii")
