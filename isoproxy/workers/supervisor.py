"""The stream processes of a main process: started, told, asked, answered, watched and ended.

Theory of operation
    Each stream process (`worker`) has a channel.  An order has a ticket; the answer to
    every order is a report.  What a stream process asks is answered by its `Answering`.
    One that does not answer in time is killed, and one that ended is started anew
    after a growing wait: its clients lose their connections, and those who come wait in
    the backlog of the listening sockets, which the main process holds, for one that serves.

Invariants
    `settled` returns only when every stream process has answered the new epoch, or the
    renewal of one identity, or is dead.
    Counts of a process that ended stay in the sums, as of its last report.  What a process
    says is judged; one that breaks the protocol is ended, and nothing else is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import isoproxy
from isoproxy.net.backoff import Backoff
from isoproxy.net.coalesced import Coalesced
from isoproxy.net.reactor import Reactor
from isoproxy.observe.log import logger
from isoproxy.workers import checked, messages, questions
from isoproxy.workers.answering import Answering, MainServices
from isoproxy.workers.channel import Channel, pair
from isoproxy.workers.messages import (
    Begin,
    Configure,
    Drain,
    Epoch,
    Settings,
    StatsRequest,
    SumsRequest,
)
from isoproxy.workers.report import Report, decode, merged

ANSWER_S: Final = 10.0
"""Seconds in which a stream process must have answered an order."""
START_S: Final = 60.0
"""Seconds in which a new one must have answered the first."""
WATCH_S: Final = 10.0
_NOT_FOR_WORKERS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})

_log: Final = logger("workers")


class Workers:
    """The `count` stream processes.

    `settings(index)` gives what the process of that number is to serve by now, its parts of
    the budgets included; `sockets(settings)` are the listening sockets that go with it.
    """

    def __init__(
        self,
        reactor: Reactor,
        services: MainServices,
        count: int,
        settings: Callable[[int], Settings],
        sockets: Callable[[Settings], list[socket.socket]],
    ) -> None:
        self.reactor = reactor
        self.services = services
        self.count = count
        self.settings = settings
        self.sockets = sockets
        self.running: set[_Process] = set()
        self.serving = asyncio.Event()
        """Set once a stream process has served."""
        self._departed = Report()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing: set[asyncio.Future[Report]] = set()
        self._end = asyncio.Event()
        self._reports = Coalesced(self._report)

    def start(self) -> None:
        """Start them all."""
        self.services.isolator.on_new_epoch(self._new_epoch)
        self.services.isolator.on_renewal(self._new_epoch)
        for index in range(self.count):
            task = asyncio.create_task(self._keep_one(index), name="stream process")
            self._tasks.add(task)

    def configure(self) -> None:
        """Tell all stream processes of new settings."""
        for process in tuple(self.running):
            self._follow(process.configure())

    async def reconfigure(self) -> None:
        """Tell all of new settings, and wait until none uses older ones."""
        self.configure()
        await self.settled()

    async def settled(self) -> None:
        """Wait until none uses an epoch or settings before the current ones."""
        if self._changing:
            await asyncio.wait(self._changing)

    async def report(self) -> Report:
        """What all stream processes have counted, those that ended included.

        However often that is asked for, no process has more than one to write.
        """
        return await self._reports.run()

    async def _report(self) -> Report:
        asked = [process.order(StatsRequest) for process in tuple(self.running) if process.answered]
        if asked:
            await asyncio.wait(asked)
        told = [future.result() for future in asked if future.exception() is None]
        return merged([self._departed, *told])

    async def leave(self, seconds: float) -> None:
        """Have all accept no client any more, and end in `seconds` at the latest."""
        self._end.set()
        asked: list[asyncio.Future[Any]] = []
        for process in tuple(self.running):
            if process.answered:
                asked.append(process.order(lambda ticket: Drain(ticket, seconds)))
            else:  # it serves no client yet, but may hold the listening sockets already
                process.end()
                asked.append(asyncio.ensure_future(process.gone()))
        if asked:
            await asyncio.wait(asked)

    def kill(self) -> None:
        """End all workers at once, and start none any more."""
        self._end.set()
        for process in tuple(self.running):
            process.end()

    async def drain(self, seconds: float) -> None:
        """Let all drain, and wait for their end."""
        if not self.ending:
            await self.leave(seconds)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds + ANSWER_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reports.close()

    def processes(self) -> list[dict[str, object]]:
        """Each running stream process for `isoproxy status`."""
        return [process.describe() for process in self.running]

    # What a process tells of itself.

    def _new_epoch(self) -> None:
        state = self.services.isolator.export_state()
        for process in tuple(self.running):
            self._follow(process.order(lambda ticket: Epoch(ticket, state)))

    def _follow(self, answer: asyncio.Future[Report]) -> None:
        self._changing.add(answer)
        answer.add_done_callback(self._changing.discard)

    @property
    def ending(self) -> bool:
        """Whether no process is to be started any more."""
        return self._end.is_set()

    async def _keep_one(self, index: int) -> None:
        backoff = Backoff(0.1, 30.0)
        while not self._end.is_set():
            process = _Process(self, index)
            try:
                await process.run()
            finally:
                self._departed = merged([self._departed, process.last.ended()])
            if self._end.is_set():
                return
            _log.warn("worker_ended", status=process.status, consequence="its streams ended")
            if process.answered:
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._end.wait()


class _Process:
    """One stream process from its start to its end."""

    def __init__(self, workers: Workers, index: int) -> None:
        self._index = index
        self._known_names: set[str] = set()
        self._most_flows = 0
        self._answering = Answering(workers.services, self._reply)
        self.status: int | None = None
        self.last = Report()
        self.answered = False
        self._workers = workers
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._partial: dict[int, Report] = {}
        self._channel: Channel | None = None
        self._ended = asyncio.Event()
        self._child: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Start, watch, and see to the end of one process."""
        workers = self._workers
        ours, theirs = pair()
        with theirs:
            try:
                child = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the folder that we are started in may be anybody's
                    "-m",
                    "isoproxy.workers.worker",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=_environment(),
                )
            except OSError as error:
                ours.close()
                _log.err("worker_not_started", error=error)
                return
        self._child = child
        self._channel = Channel(workers.reactor, ours, self._on_message, self._on_end)
        try:
            if workers.ending:  # it was on its way meanwhile
                return
            workers.running.add(self)
            self._begin()
            await self._watch()
        finally:
            workers.running.discard(self)
            self._channel.close()
            self.status = await child.wait()

    def order(
        self, order: Callable[[int], messages.Order], settings: Settings | None = None
    ) -> asyncio.Future[Report]:
        """Send an order; the future is the report that answers it, or an OSError.

        The listening sockets of `settings` go with it.
        """
        ticket = next(self._tickets)
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.exception())
        self._waiting[ticket] = answer
        self._send(order(ticket), [] if settings is None else self._workers.sockets(settings))
        if self._ended.is_set():
            self._fail(ticket)
        else:
            timer = asyncio.get_running_loop().call_later(
                ANSWER_S if self.answered else START_S, self._late, ticket
            )
            answer.add_done_callback(lambda _: timer.cancel())
        return answer

    def configure(self) -> asyncio.Future[Report]:
        """Tell it of new settings."""
        settings = self._settings()
        return self.order(lambda ticket: Configure(ticket, settings), settings)

    def describe(self) -> dict[str, object]:
        """Its process ID, whether it serves, and how many clients came as of its last report."""
        return {
            "pid": self._child.pid if self._child else None,
            "serving": self.answered,
            "accepted": self.last.accepted.total(),
        }

    def _begin(self) -> None:
        isolator, settings = self._workers.services.isolator, self._settings()
        count = self._workers.count
        self.order(
            lambda ticket: Begin(
                ticket, isolator.export_state(), isolator.verbatim, count, settings
            ),
            settings,
        )

    def _settings(self) -> Settings:
        """What it is to serve by now, and note what it may tell of."""
        settings = self._workers.settings(self._index)
        proxies = settings.bitcoin.proxies
        self._known_names.update(listener.name for listener in settings.listeners)
        self._known_names.update(plan.listener.name for plan in proxies)
        self._known_names.update(plan.listener.name for plan in settings.transparent)
        flows = (
            settings.limits.max_connections
            + sum(plan.proxy.max_connections for plan in proxies)
            + sum(service.max_connections for service in settings.bitcoin.inbound.values())
        )
        self._most_flows = max(self._most_flows, flows)
        return settings

    def _send(self, message: messages.Order | messages.Reply, sockets: list[socket.socket]) -> None:
        assert self._channel is not None
        for packet, its in messages.packets(message, sockets):
            self._channel.send(packet, its)

    def _reply(self, reply: messages.Reply) -> None:
        self._send(reply, [])

    async def _watch(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._ended.wait()
            if not self._ended.is_set():
                self.order(SumsRequest)

    def _on_message(self, message: bytes, sockets: list[socket.socket]) -> None:
        try:
            said = checked.parse(message)
            if "ask" not in said:
                self._on_report(said)
            elif len(message) <= questions.MAX_QUESTION:
                self._answering.take(questions.decode(said))
            else:
                raise ValueError("a question that is too long")
        except (ValueError, KeyError):
            _log.err("worker_protocol_error", consequence="it is ended")
            self.end()

    def _on_report(self, said: Mapping[str, Any]) -> None:
        last = "done" in said
        ticket = checked.count(said["done" if last else "part"])
        if ticket not in self._waiting:
            raise ValueError("an answer to no order")
        whole = self._partial.setdefault(ticket, Report())
        whole.add(decode(said, self._known_names.__contains__))
        if max(len(whole.flows), len(whole.bitcoin.flows)) > self._most_flows:
            raise ValueError("more flows than there may be")
        if not last:
            return
        self.last = self._partial.pop(ticket)
        self.answered = True
        self._workers.serving.set()
        answer = self._waiting.pop(ticket)
        if not answer.done():
            answer.set_result(self.last)

    def _late(self, ticket: int) -> None:
        if ticket in self._waiting:
            _log.err("worker_does_not_answer", consequence="it is ended")
            self.end()

    def end(self) -> None:
        """Kill it."""
        if self._channel is not None:
            self._channel.close()

    async def gone(self) -> None:
        """Wait for its end."""
        if self._child is not None:
            await self._child.wait()

    def _on_end(self) -> None:
        """The channel broke: nothing may be done in our name that nobody can call off."""
        self._answering.close()
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)
        self._ended.set()
        for ticket in list(self._waiting):
            self._fail(ticket)

    def _fail(self, ticket: int) -> None:
        answer = self._waiting.pop(ticket, None)
        if answer is not None and not answer.done():
            answer.set_exception(ConnectionResetError("the worker ended"))


def _environment() -> dict[str, str]:
    """Ours, less what the service manager told us alone; isoproxy is found where ours is."""
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_WORKERS}
    here = str(Path(isoproxy.__file__).parent.parent)
    paths = [here, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}
