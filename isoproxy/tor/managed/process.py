"""A tor of our own: started, watched, started again, and gone when we are gone.

Theory of operation
    `ManagedTor` writes a torrc into its directory (see `torrc`), starts `tor` on it, and
    connects a `Control` to the unix socket there.  The control connection owns tor:
    TAKEOWNERSHIP makes tor exit the moment the connection closes, which the kernel sees
    to even when we are killed.  Until that connection is up, `__OwningControllerProcess`
    does the same more slowly: tor looks every 15 s whether our process is there.

    When tor dies it is started again with back-off; a tor that has run for a minute
    begins at the shortest wait.  A tor that refuses its configuration at the first start
    is a ConfigError; later it is a failure like any other, for the file may be mended.
    The torrc is written anew for each of them: the program may have been upgraded since.

    The state reads `starting`, `bootstrapping NN%`, `ready`, `backing off Ns` or
    `stopped`.

Invariants
    The directory is ours alone (0700, locked by one isoproxy at a time): who can enter
    it could use tor without isolation.  The system's torrc is never read.  Tor gets a
    clean environment: no NOTIFY_SOCKET, so that it cannot speak to systemd in our name.
    Tor's log is kept in memory alone, scrubbed (see `log`).  Its complaints are kept as
    they are until the control connection is up; ours repeats those of a tor that never
    ran, and no others.

Specification: tor(1); control-spec §3.23 TAKEOWNERSHIP.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.observe.log import logger
from isoproxy.private_file import replace_file
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.child import Child, Spawn, end, spawn_process
from isoproxy.tor.managed.log import TorLog
from isoproxy.tor.managed.torrc import (
    NO_VERSION,
    TorOutput,
    Version,
    parse_version,
    socket_in,
    torrc,
)
from isoproxy.tor.observers import Observers

_log = logger("tor")

CONTROL_S: Final = 60.0
"""How long a new tor may take until its control port answers."""
STABLE_S: Final = 60.0


class Stage(enum.Enum):
    """Where a managed tor is in its life."""

    STARTING = "starting"
    BOOTSTRAPPING = "bootstrapping"
    READY = "ready"
    BACKING_OFF = "backing off"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class TorState:
    """A stage with what goes with it: percent, or the wait in seconds and its reason."""

    stage: Stage
    percent: int = 0
    retry_in: float = 0.0
    problem: str | None = None

    def __str__(self) -> str:
        if self.stage is Stage.BOOTSTRAPPING:
            return f"{self.stage.value} {self.percent}%"
        if self.stage is Stage.BACKING_OFF:
            return f"{self.stage.value} {self.retry_in:.0f}s"
        return f"{self.stage.value}"


class ManagedTor:
    """Tor as a child of ours, living in `directory`.

    `extra_torrc` are further lines of torrc.  `socks` is the endpoint for the dialer,
    `control` the control connection; both stay the same over restarts of tor.
    """

    def __init__(
        self,
        directory: Path,
        *,
        program: str = "tor",
        extra_torrc: Sequence[str] = (),
        backoff: Backoff | None = None,
        spawn: Spawn = spawn_process,
        control: Control | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.socks = socket_in(self.directory, "socks")
        self.version: Version | None = None
        self.starts = 0
        endpoint = socket_in(self.directory, "control")
        self.control = control or Control(endpoint, own=True, backoff=Backoff(0.05, 1.0))
        self._program = program
        self._extra = tuple(extra_torrc)
        self._backoff = backoff or Backoff(1.0, 60.0)
        self._spawn = spawn
        self._state = TorState(Stage.STOPPED)
        self._states: Observers[TorState] = Observers()
        self._task: asyncio.Task[None] | None = None
        self._child: Child | None = None
        self.log = TorLog()
        self._output = TorOutput(self.log)
        self._has_run = False
        self._running = asyncio.Event()  # tor's control connection is up
        self._unfit = asyncio.Event()  # it is, and tor would not isolate
        self._resources = contextlib.AsyncExitStack()

    @property
    def state(self) -> TorState:
        return self._state

    @property
    def pid(self) -> int | None:
        """The process id of the tor that runs now."""
        return None if self._child is None else self._child.pid

    def on_state(self, callback: Callable[[TorState], None]) -> Callable[[], None]:
        """Tell `callback` of each change of `state`; the result ends that."""
        return self._states.add(callback)

    def on_progress(self, callback: Callable[[Bootstrap], None]) -> Callable[[], None]:
        """Tell `callback` each step of the bootstrap; the result ends that."""
        return self.control.on_bootstrap(callback)

    async def start(self) -> None:
        """Start tor and return when its control connection is up; bootstrap goes on.

        Raises ConfigError if tor is missing, too old, or refuses its configuration, and
        OperationError if its directory cannot be used.
        """
        assert self._task is None, "it runs already"
        try:
            self._prepare_directory()
            self._resources.enter_context(_lock(self.directory / "lock"))
            await self._write_torrc()
            self._resources.callback(self.control.on_state(self._control_changed))
            self._resources.callback(self.control.on_bootstrap(self._bootstrapped))
            self._task = asyncio.create_task(self._supervise(), name="managed tor")
            self._task.add_done_callback(self._supervisor_ended)
            self.control.start()
            await self._first_start(self._task)
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                raise OperationError(
                    f"the directory for tor, {self.directory}, cannot be used: {error.strerror}; "
                    "mend it, or set STATE_DIRECTORY"
                ) from None
            raise

    async def wait_ready(self) -> None:
        """Until the bootstrap is complete; put a deadline around it."""
        if self._state.stage is not Stage.READY:
            await self._states.first(lambda state: state.stage is Stage.READY)

    async def stop(self) -> None:
        """End tor and wait until it is gone."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.control.close()
        await self._resources.aclose()
        self._set(TorState(Stage.STOPPED))

    async def _first_start(self, supervisor: asyncio.Task[None]) -> None:
        running = asyncio.create_task(self._running.wait())
        try:
            await asyncio.wait([supervisor, running], return_when=asyncio.FIRST_COMPLETED)
            if supervisor.done():
                supervisor.result()
        finally:
            running.cancel()

    def _prepare_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigError(
                "the directory for tor must be a real directory that belongs to the user who "
                "runs isoproxy; move it away, or set STATE_DIRECTORY"
            )
        self.directory.chmod(0o700)

    async def _write_torrc(self) -> None:
        self.version = await self._ask_version()
        text = torrc(self.directory, self.version, self._extra)
        replace_file(self.directory / "torrc", text)

    async def _rewrite_torrc(self) -> str | None:
        """Follow the tor that is installed by now; says why that cannot be."""
        try:
            await self._write_torrc()
        except ConfigError as error:
            return str(error)
        except OSError as error:
            return f"its torrc cannot be written: {error.strerror}"
        return None

    async def _ask_version(self) -> Version:
        try:
            child = await self._spawn([self._program, "--version"], self._environment())
        except FileNotFoundError:
            raise ConfigError(
                "tor is not installed, or not where tor.binary says; install it (on Debian: apt "
                'install tor), or set tor.mode = "system" to use one that runs elsewhere'
            ) from None
        except OSError as error:
            raise ConfigError(f"tor cannot be started: {error.strerror}") from None
        try:
            assert child.stdout is not None
            async with asyncio.timeout(CONTROL_S):
                text = await child.stdout.read(4096)
                await child.wait()
        except TimeoutError:
            raise ConfigError(NO_VERSION) from None
        finally:
            await end(child)
        return parse_version(text.decode("ascii", "replace"))

    def _environment(self) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, "HOME": str(self.directory), "LC_ALL": "C"}

    async def _supervise(self) -> None:
        """Keep a tor running until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            self._set(TorState(Stage.STARTING))
            began = clock()
            problem = await self._one_life()
            if not self._has_run:
                self._judge_first_end(problem)
            if clock() - began > STABLE_S:
                self._backoff.reset()
            delay = self._backoff.next()
            # Before tor ever ran nobody's activity can be in its words.
            why = {} if self._has_run else {"problem": problem}
            _log.warn("tor_ended", started_again_in_s=round(delay, 1), **why)
            self._set(TorState(Stage.BACKING_OFF, retry_in=delay, problem=problem))
            await asyncio.sleep(delay)

    def _supervisor_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.err("tor_is_no_longer_watched", error=error)
            self._set(TorState(Stage.STOPPED, problem="it is no longer watched"))

    def _judge_first_end(self, problem: str) -> None:
        """Tor ended before it ever ran: trying again does not help against some causes."""
        if self._output.lacks_isolation:
            raise ConfigError(
                "this tor does not know all isolation flags that isoproxy relies on; "
                'upgrade tor, or set tor.mode = "system"'
            )
        if self._output.is_bad_config:
            raise ConfigError(f"tor refuses its configuration: {problem}")

    async def _one_life(self) -> str:
        """Start one tor and wait for its end; says why it ended."""
        self.starts += 1
        if self.starts > 1 and (problem := await self._rewrite_torrc()) is not None:
            return problem
        self._output = TorOutput(self.log)
        self._running.clear()
        self._unfit.clear()
        self._remove_sockets()
        arguments = [
            *(self._program, "-f", str(self.directory / "torrc")),
            *("--defaults-torrc", os.devnull),
            *("__OwningControllerProcess", str(os.getpid())),
        ]
        try:
            child = await self._spawn(arguments, self._environment())
        except OSError as error:
            return f"tor cannot be started: {error.strerror}"
        self._child = child
        listening = asyncio.create_task(_drain(child, self._output), name="tor output")
        try:
            await self._until_end(child)
        finally:
            await end(child)
            self._child = None
            await asyncio.wait([listening], timeout=1.0)
            listening.cancel()
        complaints = "; ".join(self._output.problems)
        return complaints or f"tor ended with status {child.returncode}"

    def _remove_sockets(self) -> None:
        """What a dead tor left behind must not be taken for the next one's."""
        for endpoint in (self.socks, self.control.endpoint):
            assert endpoint.path is not None
            Path(endpoint.path).unlink(missing_ok=True)

    async def _until_end(self, child: Child) -> None:
        """Until tor ends, cannot isolate, or does not open its control port in time."""
        ended = asyncio.create_task(child.wait())
        running = asyncio.create_task(self._running.wait())
        unfit = asyncio.create_task(self._unfit.wait())
        waits = (ended, running, unfit)
        try:
            await asyncio.wait(waits, timeout=CONTROL_S, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await ended
        finally:
            for wait in waits:
                wait.cancel()

    def _control_changed(self, state: ControlState) -> None:
        if state.phase is Phase.READY and self._child is not None:
            if self._output.lacks_isolation:
                self._unfit.set()
                return
            self._output.settle()
            self._has_run = True
            self._running.set()
            if self._state.stage is Stage.STARTING:
                self._bootstrapped(self.control.bootstrap or Bootstrap(0, "", ""))

    def _bootstrapped(self, bootstrap: Bootstrap) -> None:
        if self._child is None or self._state.stage not in (Stage.STARTING, Stage.BOOTSTRAPPING):
            return
        if bootstrap.percent == 100:
            self._set(TorState(Stage.READY, percent=100))
        else:
            self._set(TorState(Stage.BOOTSTRAPPING, percent=bootstrap.percent))

    def _set(self, state: TorState) -> None:
        if state != self._state:
            self._state = state
            _log.info("tor_state", state=str(state))
            self._states.notify(state)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One isoproxy at a time in a directory; the kernel unlocks when we end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise OperationError(
                "another isoproxy runs a tor in the same state directory; stop it, or give "
                "this one another STATE_DIRECTORY"
            ) from None
        yield
    finally:
        os.close(descriptor)


async def _drain(child: Child, output: TorOutput) -> None:
    """Read what tor prints, so that it never waits for us."""
    if child.stdout is not None:
        while data := await child.stdout.read(4096):
            output.feed(data)
