"""A managed tor's life in virtual time, with a scripted child."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.process import CONTROL_S, ManagedTor, Stage, TorState
from tests.kit.waiting import until


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


@pytest.mark.virtual_clock
async def test_the_states_of_a_life(tmp_path: Path) -> None:
    tor, control, program = managed(tmp_path)
    states: list[str] = []
    tor.on_state(lambda state: states.append(str(state)))
    await tor.start()
    control.reach(45)
    control.reach(100)
    await tor.wait_ready()
    program.children[0].end(1)
    await asyncio.sleep(0.5)
    assert tor.state == TorState(Stage.BACKING_OFF, retry_in=1.0, problem="tor ended with status 1")
    await asyncio.sleep(1.0)
    await tor.stop()
    assert states == [
        "starting",
        "bootstrapping 0%",
        "bootstrapping 45%",
        "ready",
        "backing off 1s",
        "starting",
        "bootstrapping 0%",
        "stopped",
    ]
    assert program.children[1].signals == ["TERM"]


@pytest.mark.virtual_clock
async def test_the_waits_double_until_a_tor_has_lived_a_minute(tmp_path: Path) -> None:
    tor, _, program = managed(tmp_path)
    await tor.start()
    waits = []
    for _ in range(3):
        program.children[-1].end(1)
        await asyncio.sleep(0.5)
        waits.append(tor.state.retry_in)
        before = len(program.times)
        await asyncio.sleep(tor.state.retry_in - 0.6)
        assert len(program.times) == before
        await asyncio.sleep(0.7)
        assert len(program.times) == before + 1
    assert waits == [1.0, 2.0, 4.0]
    await asyncio.sleep(61)
    program.children[-1].end(1)
    await asyncio.sleep(0.1)
    assert tor.state.retry_in == 1.0
    await tor.stop()


@pytest.mark.virtual_clock
async def test_a_failed_start_is_tried_again(tmp_path: Path) -> None:
    locked = b"Nov 21 02:08:49.355 [err] No, it's still there.  Exiting.\n"
    tor, _, _ = managed(tmp_path, ScriptedChild(locked, 1), OSError(11, "no memory"))
    states: list[TorState] = []
    tor.on_state(states.append)
    await tor.start()
    problems = [state.problem for state in states if state.stage is Stage.BACKING_OFF]
    assert problems == ["No, it's still there.  Exiting.", "tor cannot be started: no memory"]
    assert tor.starts == 3
    await tor.stop()


@pytest.mark.virtual_clock
async def test_why_tor_never_ran_is_logged_and_nothing_of_one_that_did(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(words: bytes) -> ScriptedChild:
        return ScriptedChild(b"Nov 26 00:00:00.000 [warn] " + words + b"\n", 1)

    lives = [fails(b"the disk is full"), ScriptedChild(), fails(b"marked.example")]
    tor, _, program = managed(tmp_path, *lives)
    await tor.start()
    problems = [record.fields.get("problem") for record in ended(caplog)]
    assert problems == ["the disk is full"]
    program.children[-1].end(1)
    await asyncio.sleep(30)
    problems = [record.fields.get("problem") for record in ended(caplog)]
    assert problems == ["the disk is full", None, None]
    assert "marked" not in str([record.fields for record in ended(caplog)])
    await tor.stop()


def ended(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.msg == "tor_ended"]


@pytest.mark.virtual_clock
async def test_a_tor_without_control_port_is_ended_in_time(tmp_path: Path) -> None:
    tor, control, program = managed(tmp_path, StubbornChild())
    program.comes_up = False
    starting = asyncio.create_task(tor.start())
    await asyncio.sleep(CONTROL_S + 1)
    assert program.children[0].signals == ["TERM"]
    await asyncio.sleep(5)
    assert program.children[0].signals == ["TERM", "KILL"]
    await until(lambda: tor.starts == 2)
    control.come_up()
    await starting
    await tor.stop()


@pytest.mark.virtual_clock
async def test_a_tor_that_lacks_an_isolation_flag_is_not_used(tmp_path: Path) -> None:
    output = b"Nov 21 02:08:49.368 [warn] Unrecognized SocksPort option '\"ExtendedErrors\"'\n"
    child = ScriptedChild(output)
    tor, _, _ = managed(tmp_path, child)
    with pytest.raises(ConfigError, match="isolation flags"):
        await tor.start()
    assert child.signals == ["TERM"]
    assert tor.state.stage is Stage.STOPPED


@pytest.mark.virtual_clock
async def test_a_refused_configuration_ends_the_start(tmp_path: Path) -> None:
    output = (
        b"Nov 21 02:08:49.355 [warn] Failed to parse/validate config: Unknown option 'Foo'.\n"
        b"Nov 21 02:08:49.355 [err] Reading config failed--see warnings above.\n"
    )
    tor, _, _ = managed(tmp_path, ScriptedChild(output, 1))
    with pytest.raises(ConfigError, match="Unknown option 'Foo'"):
        await tor.start()


@pytest.mark.virtual_clock
async def test_the_start_may_be_cancelled(tmp_path: Path) -> None:
    tor, _, program = managed(tmp_path)
    program.comes_up = False
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await tor.start()
    assert program.children[0].signals == ["TERM"]
    assert str(tor.state) == "stopped"


@pytest.mark.virtual_clock
async def test_tor_gets_its_own_torrc_and_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("LD_PRELOAD", "")
    tor, _, program = managed(tmp_path)
    await tor.start()
    arguments = program.arguments[-1]
    assert arguments[:3] == ["tor", "-f", str(tmp_path / "torrc")]
    assert arguments[3:5] == ["--defaults-torrc", "/dev/null"]
    assert arguments[5:] == ["__OwningControllerProcess", str(os.getpid())]
    assert set(program.environment) == {"PATH", "HOME", "LC_ALL"}
    assert stat.S_IMODE((tmp_path / "torrc").stat().st_mode) == 0o600
    assert tor.version == (0, 4, 9, 11)
    await tor.stop()


@pytest.mark.virtual_clock
async def test_a_tor_that_was_upgraded_is_told_what_the_old_one_did_not_know(
    tmp_path: Path,
) -> None:
    tor, _, program = managed(tmp_path)
    program.version = b"0.4.7.16"
    await tor.start()
    assert "ConfluxEnabled" not in (tmp_path / "torrc").read_text()
    program.version = b"0.4.9.11"
    program.children[-1].end(0)
    await asyncio.sleep(1.5)
    assert len(program.children) == 2
    assert "\nConfluxEnabled 0\n" in (tmp_path / "torrc").read_text()
    assert tor.version == (0, 4, 9, 11)
    await tor.stop()


@pytest.mark.virtual_clock
async def test_a_tor_that_became_too_old_is_not_started_until_it_is_upgraded(
    tmp_path: Path,
) -> None:
    tor, _, program = managed(tmp_path)
    await tor.start()
    program.version = b"0.4.5.1"
    program.children[-1].end(0)
    await asyncio.sleep(2)
    assert "too old" in (tor.state.problem or "")
    assert len(program.children) == 1
    program.version = b"0.4.8.1"
    await asyncio.sleep(3)
    assert len(program.children) == 2
    assert str(tor.state) == "bootstrapping 0%"
    await tor.stop()


@pytest.mark.virtual_clock
async def test_the_directory_becomes_private_and_is_ours_alone(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "tor"
    home.mkdir(parents=True, mode=0o755)
    first, _, _ = managed(home)
    second, _, _ = managed(home)
    await first.start()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    with pytest.raises(OperationError, match="another isoproxy"):
        await second.start()
    assert first.state.stage is Stage.BOOTSTRAPPING
    await first.stop()
    await second.start()
    await second.stop()


@pytest.mark.virtual_clock
async def test_a_directory_that_cannot_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "tor" / "torrc").mkdir(parents=True)
    (tmp_path / "file").touch()
    for home in (tmp_path / "tor", tmp_path / "file", tmp_path / "file" / "tor"):
        tor, _, _ = managed(home)
        with pytest.raises(OperationError, match="STATE_DIRECTORY"):
            await tor.start()
        assert tor.state.stage is Stage.STOPPED


@pytest.mark.virtual_clock
async def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    tor, _, _ = managed(tmp_path / "link")
    with pytest.raises(ConfigError, match="real directory"):
        await tor.start()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter directory"):
        ManagedTor(Path("/" + "d" * 100))
