"""The life of a managed program in virtual time, with a scripted child."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from isoproxy.errors import ConfigError, OperationError
from isoproxy.tor.managed.program import START_S, Stage, TorState
from tests.kit.scripted_tor import ScriptedChild, StubbornChild, managed
from tests.kit.waiting import until


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
    await asyncio.sleep(START_S + 1)
    assert program.children[0].signals == ["TERM"]
    await asyncio.sleep(5)
    assert program.children[0].signals == ["TERM", "KILL"]
    await until(lambda: tor.starts == 2)
    control.come_up()
    await starting
    await tor.stop()


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
