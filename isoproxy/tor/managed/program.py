"""A program of ours that joins Tor: started, watched, started again, gone when we are gone.

Theory of operation
    `ManagedProgram` lives in a directory of its own.  It writes its configuration anew
    before each start, for the program may have been upgraded since.  When the program
    dies it is started again with back-off; one that has run for a minute begins at the
    shortest wait.  What it refuses before it has ever run is a ConfigError; later it is
    a failure like any other.

    The state reads `starting`, `bootstrapping NN%`, `ready`, `backing off Ns` or
    `stopped`.  `ManagedTor` and `ManagedArti` say what is particular to each.

Invariants
    The directory is ours alone (0700, locked by one isoproxy at a time): who can enter
    it could use Tor without isolation.  The program gets a clean environment: no
    NOTIFY_SOCKET, so that it cannot speak to systemd in our name.
    What it says is kept in memory alone, scrubbed (see `log`).
"""

from __future__ import annotations

import abc
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
from typing import ClassVar, Final

from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import logger
from isoproxy.tor.control.connection import Control
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.child import Child, Spawn, end
from isoproxy.tor.managed.log import TorLog
from isoproxy.tor.observers import Observers

_log = logger("tor")

START_S: Final = 60.0
"""How long a new program may take until it can be controlled."""
STABLE_S: Final = 60.0


class Stage(enum.Enum):
    """Where a managed program is in its life."""

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


class ManagedProgram(abc.ABC):
    """A child of ours, living in `directory`.

    `control` is the control connection, which may lead nowhere; it stays the same over
    restarts.
    """

    name: ClassVar[str]
    control: Control

    def __init__(
        self, directory: Path, *, program: str, backoff: Backoff | None, spawn: Spawn
    ) -> None:
        self.directory = directory.absolute()
        self.starts = 0
        self.log = TorLog()
        self._program = program
        self._backoff = backoff or Backoff(1.0, 60.0)
        self._spawn = spawn
        self._state = TorState(Stage.STOPPED)
        self._states: Observers[TorState] = Observers()
        self._task: asyncio.Task[None] | None = None
        self._child: Child | None = None
        self._has_run = False
        self._was_silent = False
        """Whether the last life was ended because it could not be controlled in time."""
        self._running = asyncio.Event()  # it can be controlled
        self._unfit = asyncio.Event()  # it can, and it would not isolate
        self._resources = contextlib.AsyncExitStack()

    @property
    @abc.abstractmethod
    def socks(self) -> Endpoint:
        """Where the dialer finds its SOCKS port; nowhere while that is not known."""

    @property
    def state(self) -> TorState:
        return self._state

    @property
    def pid(self) -> int | None:
        """The process id of the program that runs now."""
        return None if self._child is None else self._child.pid

    def on_state(self, callback: Callable[[TorState], None]) -> Callable[[], None]:
        """Tell `callback` of each change of `state`; the result ends that."""
        return self._states.add(callback)

    @abc.abstractmethod
    def on_progress(self, callback: Callable[[Bootstrap], None]) -> Callable[[], None]:
        """Tell `callback` each step of the bootstrap; the result ends that."""

    async def start(self) -> None:
        """Start the program and return when it can be controlled; bootstrap goes on.

        Raises ConfigError if it is missing, too old, or refuses its configuration, and
        OperationError if its directory cannot be used.
        """
        assert self._task is None, "it runs already"
        try:
            self._prepare_directory()
            self._resources.enter_context(_lock(self.directory / "lock"))
            await self._configure()
            self._task = asyncio.create_task(self._supervise(), name=f"managed {self.name}")
            self._task.add_done_callback(self._supervisor_ended)
            self._begin()
            await self._first_start(self._task)
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                raise OperationError(
                    f"the directory for {self.name}, {self.directory}, cannot be used: "
                    f"{error.strerror}; mend it, or set STATE_DIRECTORY"
                ) from None
            raise

    async def wait_ready(self) -> None:
        """Until the bootstrap is complete; put a deadline around it."""
        if self._state.stage is not Stage.READY:
            await self._states.first(lambda state: state.stage is Stage.READY)

    async def stop(self) -> None:
        """End the program and wait until it is gone."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.control.close()
        await self._resources.aclose()
        self._set(TorState(Stage.STOPPED))

    @abc.abstractmethod
    async def _configure(self) -> None:
        """Write the configuration; raises ConfigError or OSError where that cannot be."""

    @abc.abstractmethod
    def _arguments(self) -> Sequence[str]:
        """What it is started with."""

    @abc.abstractmethod
    def _begin(self) -> None:
        """The supervisor has begun; the program comes up at any time from now on."""

    @abc.abstractmethod
    def _before_life(self) -> None:
        """The next program is about to be started."""

    @abc.abstractmethod
    def _output(self, data: bytes) -> None:
        """The next bytes of what it prints."""

    @abc.abstractmethod
    def _complaints(self) -> str:
        """What it has complained of in this life."""

    @abc.abstractmethod
    def _judge_first_end(self, problem: str) -> None:
        """It ended before it ever ran; raises ConfigError if trying again cannot help."""

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
                f"the directory for {self.name} must be a real directory that belongs to the user "
                "who runs isoproxy; move it away, or set STATE_DIRECTORY"
            )
        self.directory.chmod(0o700)

    async def _configure_again(self) -> str | None:
        """Follow the program that is installed by now; says why that cannot be."""
        try:
            await self._configure()
        except ConfigError as error:
            return str(error)
        except OSError as error:
            return f"its configuration cannot be written: {error.strerror}"
        return None

    async def _ask_version(self, not_installed: str, no_version: str) -> str:
        """What it prints for `--version`; ConfigError with these words where it does not."""
        try:
            child = await self._spawn([self._program, "--version"], self._environment())
        except FileNotFoundError:
            raise ConfigError(not_installed) from None
        except OSError as error:
            raise ConfigError(f"{self.name} cannot be started: {error.strerror}") from None
        try:
            assert child.stdout is not None
            async with asyncio.timeout(START_S):
                text = await child.stdout.read(4096)
                await child.wait()
        except TimeoutError:
            raise ConfigError(no_version) from None
        finally:
            await end(child)
        return text.decode("ascii", "replace")

    def _environment(self) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, "HOME": str(self.directory), "LC_ALL": "C"}

    async def _supervise(self) -> None:
        """Keep it running until cancelled."""
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
            # Before it ever ran nobody's activity can be in its words.
            why = {} if self._has_run else {"problem": problem}
            _log.warn("tor_ended", started_again_in_s=round(delay, 1), **why)
            self._set(TorState(Stage.BACKING_OFF, retry_in=delay, problem=problem))
            await asyncio.sleep(delay)

    def _supervisor_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.err("tor_is_no_longer_watched", error=error)
            self._set(TorState(Stage.STOPPED, problem="it is no longer watched"))

    async def _one_life(self) -> str:
        """Start one and wait for its end; says why it ended."""
        self.starts += 1
        if self.starts > 1 and (problem := await self._configure_again()) is not None:
            return problem
        self._running.clear()
        self._unfit.clear()
        self._before_life()
        try:
            child = await self._spawn(self._arguments(), self._environment())
        except OSError as error:
            return f"{self.name} cannot be started: {error.strerror}"
        self._child = child
        listening = asyncio.create_task(self._drain(child), name=f"{self.name} output")
        try:
            await self._until_end(child)
            self._was_silent = child.returncode is None and not self._running.is_set()
        finally:
            await end(child)
            self._child = None
            await asyncio.wait([listening], timeout=1.0)
            listening.cancel()
        return self._complaints() or f"{self.name} ended with status {child.returncode}"

    async def _until_end(self, child: Child) -> None:
        """Until it ends, cannot isolate, or cannot be controlled in time."""
        ended = asyncio.create_task(child.wait())
        running = asyncio.create_task(self._running.wait())
        unfit = asyncio.create_task(self._unfit.wait())
        waits = (ended, running, unfit)
        try:
            await asyncio.wait(waits, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await ended
        finally:
            for wait in waits:
                wait.cancel()

    async def _drain(self, child: Child) -> None:
        """Read what it prints, so that it never waits for us."""
        if child.stdout is not None:
            while data := await child.stdout.read(4096):
                self._output(data)

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
