"""A managed tor whose program and control connection a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.process import ManagedTor


class ScriptedChild:
    """A program that prints what it is given and ends when told."""

    def __init__(self, output: bytes = b"", status: int | None = None) -> None:
        self.pid = 4711
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(output)
        self.returncode: int | None = None
        self.signals: list[str] = []
        self._ended = asyncio.Event()
        if status is not None:
            self.end(status)

    def end(self, status: int) -> None:
        if self.returncode is None:
            self.returncode = status
            self.stdout.feed_eof()
            self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self.signals.append("TERM")
        self.end(0)

    def kill(self) -> None:
        self.signals.append("KILL")
        self.end(-9)


class StubbornChild(ScriptedChild):
    """Ends for SIGKILL only."""

    def terminate(self) -> None:
        self.signals.append("TERM")


class ScriptedControl(Control):
    """A control connection whose state a test sets."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Endpoint.unix(str(directory / "control")))

    def start(self) -> None:
        pass

    def come_up(self) -> None:
        self.bootstrap = None
        self._set(ControlState(Phase.CONNECTING))
        self._set(ControlState(Phase.READY))

    def reach(self, percent: int) -> None:
        self._bootstrapped(Bootstrap(percent, "tag", "Words"))


class Program:
    """Starts scripted children: one after the other from `lives`, then quiet ones."""

    def __init__(self, control: ScriptedControl, *lives: ScriptedChild | OSError) -> None:
        self.control = control
        self.lives = list(lives)
        self.children: list[ScriptedChild] = []
        self.arguments: list[list[str]] = []
        self.environment: Mapping[str, str] = {}
        self.times: list[float] = []
        self.comes_up = True
        self.version = b"0.4.9.11"

    async def spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> ScriptedChild:
        self.arguments.append(list(arguments))
        self.environment = environment
        if "--version" in arguments:
            return ScriptedChild(b"Tor version " + self.version + b".\n", 0)
        self.times.append(asyncio.get_running_loop().time())
        life = self.lives.pop(0) if self.lives else ScriptedChild()
        if isinstance(life, OSError):
            raise life
        self.children.append(life)
        if life.returncode is None and self.comes_up:
            asyncio.get_running_loop().call_later(0.01, self.control.come_up)
        return life


def managed(
    directory: Path, *lives: ScriptedChild | OSError
) -> tuple[ManagedTor, ScriptedControl, Program]:
    control = ScriptedControl(directory)
    program = Program(control, *lives)
    backoff = Backoff(1.0, 60.0, jitter=lambda low, high: high)
    tor = ManagedTor(directory, backoff=backoff, spawn=program.spawn, control=control)
    return tor, control, program
