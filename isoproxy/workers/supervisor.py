"""The workers of a main process: started, told, asked, watched and ended.

Theory of operation
    Each worker (`worker`) has a channel.  An order has a ticket; the answer to every
    order is a report.  A worker that does not answer in time is killed, and one that
    ended is started anew after a growing wait: its clients lose their connections, the
    others notice nothing, because the main process accepts on the same sockets.

Invariants
    `settled` returns only when every worker has answered the new epoch, or is dead.
    The parts of the budgets together are never more than the whole.  Counts of a worker
    that ended stay in the sums, as of its last report.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import itertools
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import isoproxy
from isoproxy.front.frontend import FrontEnd
from isoproxy.net.backoff import Backoff
from isoproxy.observe.log import logger
from isoproxy.workers import messages as orders
from isoproxy.workers.channel import Channel, pair
from isoproxy.workers.messages import Begin, Configure, Drain, Epoch, Settings, Tell
from isoproxy.workers.report import Report, decode, merged

ANSWER_S: Final = 10.0
"""Seconds in which a worker must have answered an order."""
START_S: Final = 60.0
"""Seconds in which a new one must have answered the first."""
WATCH_S: Final = 10.0
_NOT_FOR_WORKERS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})

_log: Final = logger("front")


class Workers:
    """The `count` processes beside the main one; none for `count` = 0.

    `settings()` gives what they are to serve by now, the shares of budgets included.
    """

    def __init__(self, front: FrontEnd, count: int, settings: Callable[[], Settings]) -> None:
        self.front = front
        self.count = count
        self.settings = settings
        self.running: set[_Process] = set()
        self._departed = Report()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing: set[asyncio.Future[Report]] = set()
        self._end = asyncio.Event()

    def start(self) -> None:
        """Start them all; clients are served meanwhile."""
        self.front.isolator.on_new_epoch(self._new_epoch)
        for _ in range(self.count):
            task = asyncio.create_task(self._keep_one(), name="worker")
            self._tasks.add(task)

    def configure(self) -> None:
        """Tell all workers of new settings."""
        for process in tuple(self.running):
            self._follow(process.configure())

    async def settled(self) -> None:
        """Wait until no worker uses an epoch or settings before the current ones."""
        if self._changing:
            await asyncio.wait(self._changing)

    async def report(self) -> Report:
        """What all workers have counted, those that ended included."""
        asked = [process.order(Tell) for process in tuple(self.running) if process.answered]
        if asked:
            await asyncio.wait(asked)
        told = [future.result() for future in asked if future.exception() is None]
        return merged([self._departed, *told])

    async def leave(self, seconds: float) -> None:
        """Have all workers accept nobody any more, and end in `seconds` at the latest."""
        self._end.set()
        asked: list[asyncio.Future[Any]] = []
        for process in tuple(self.running):
            if process.answered:
                asked.append(process.order(lambda ticket: Drain(ticket, seconds)))
            else:  # it serves nobody yet, but may hold the listening sockets already
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
        """Let all workers drain, and wait for their end."""
        if not self.ending:
            await self.leave(seconds)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds + ANSWER_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def sockets(self, settings: Settings) -> list[socket.socket]:
        """The listening sockets that go with `settings`."""
        return [self.front.listeners[each.name].socket for each in settings.listeners]

    def processes(self) -> list[dict[str, object]]:
        """Each running worker for `isoproxy status`."""
        return [process.describe() for process in self.running]

    # What a process tells of itself.

    def took_client(self, listener: str, at: str, heard: bytes, client: socket.socket) -> None:
        """A worker hands over a client that came to `listener` when that was `at` its place.

        A reload may have given the name to another place, whose clients are others.
        """
        context = self.front.listeners.get(listener)
        if context is None or str(context.settings.endpoint) != at:
            client.close()
            return
        try:
            peer = client.getpeername()
        except OSError:
            client.close()
            return
        context.admit(client, peer, heard)

    def _new_epoch(self) -> None:
        state = self.front.isolator.export_state()
        for process in tuple(self.running):
            self._follow(process.order(lambda ticket: Epoch(ticket, state)))

    def _follow(self, answer: asyncio.Future[Report]) -> None:
        self._changing.add(answer)
        answer.add_done_callback(self._changing.discard)

    @property
    def ending(self) -> bool:
        """Whether no worker is to be started any more."""
        return self._end.is_set()

    async def _keep_one(self) -> None:
        backoff = Backoff(0.5, 30.0)
        while not self._end.is_set():
            process = _Process(self)
            try:
                await process.run()
            finally:
                self._departed = merged([self._departed, _at_the_end(process.last)])
            if self._end.is_set():
                return
            _log.warn("worker_ended", status=process.status, consequence="its streams ended")
            if process.answered:
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._end.wait()


class _Process:
    """One worker from its start to its end."""

    def __init__(self, workers: Workers) -> None:
        self.status: int | None = None
        self.last = Report()
        self.answered = False
        self._workers = workers
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._partial: dict[int, list[Report]] = {}
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
        front = workers.front
        self._channel = Channel(
            front.reactor, ours, self._on_message, self._on_end, front.services.out_of_descriptors
        )
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
        self,
        order: Callable[[int], orders.Order],
        sockets: list[socket.socket] | None = None,
    ) -> asyncio.Future[Report]:
        """Send an order; the future is the report that answers it, or an OSError."""
        ticket = next(self._tickets)
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.exception())
        self._waiting[ticket] = answer
        assert self._channel is not None
        self._channel.send(orders.encode(order(ticket)), sockets or ())
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
        settings = self._workers.settings()
        return self.order(
            lambda ticket: Configure(ticket, settings), self._workers.sockets(settings)
        )

    def describe(self) -> dict[str, object]:
        """Its process ID, whether it serves, and how many clients came as of its last report."""
        return {
            "pid": self._child.pid if self._child else None,
            "serving": self.answered,
            "accepted": self.last.accepted.total(),
        }

    def _begin(self) -> None:
        workers, isolator = self._workers, self._workers.front.isolator
        settings = workers.settings()
        self.order(
            lambda ticket: Begin(
                ticket, isolator.export_state(), isolator.verbatim, workers.count + 1, settings
            ),
            workers.sockets(settings),
        )

    async def _watch(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._ended.wait()
            if not self._ended.is_set():
                self.order(Tell)

    def _on_message(self, message: bytes, sockets: list[socket.socket]) -> None:
        try:
            said = json.loads(message)
            if "client" in said:
                name, at = said["client"]
                heard = base64.b64decode(said["heard"], validate=True)
                (client,) = sockets
                sockets = []
                self._workers.took_client(str(name), str(at), heard, client)
            else:
                self._on_report(said)
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            _log.err("worker_protocol_error", consequence="it is ended")
            self.end()
        finally:
            for sock in sockets:
                sock.close()

    def _on_report(self, said: dict[str, Any]) -> None:
        report = decode(said)
        if "done" not in said:
            self._partial.setdefault(int(said["part"]), []).append(report)
            return
        ticket = int(said["done"])
        self.last = merged([*self._partial.pop(ticket, ()), report])
        self.answered = True
        answer = self._waiting.pop(ticket, None)
        if answer is not None and not answer.done():
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
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
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


def _at_the_end(last: Report) -> Report:
    """What stays of a worker's last report: sums, to which its open streams contribute."""
    counters = merged([last]).counters
    counters.bytes_up += sum(flow.bytes_up for flow in last.flows)
    counters.bytes_down += sum(flow.bytes_down for flow in last.flows)
    counters.spliced_up += sum(flow.spliced[0] for flow in last.flows)
    counters.spliced_down += sum(flow.spliced[1] for flow in last.flows)
    return Report(counters, last.accepted, lookups_refused=last.lookups_refused)
