"""A program of ours: alone with its arguments, and ended in any case."""

from __future__ import annotations

import os

import pytest

from isoproxy.tor.managed import child as module
from isoproxy.tor.managed.child import Child, end, spawn_process


async def shell(script: str, *arguments: str) -> Child:
    return await spawn_process(["/bin/sh", "-c", script, *arguments], {"ONLY": "this"})


async def output(started: Child) -> list[str]:
    assert started.stdout is not None
    return (await started.stdout.read()).decode().splitlines()


async def test_it_has_nothing_of_ours_but_its_arguments() -> None:
    started = await shell('echo "$1 $ONLY $HOME"; cat; echo told >&2', "name", "a b")
    assert await output(started) == ["a b this ", "told"]
    await end(started)
    assert started.returncode == 0


async def test_a_ctrl_c_at_our_terminal_is_not_for_it() -> None:
    started = await shell("exec sleep 60")
    assert os.getsid(started.pid) == started.pid != os.getsid(0)
    await end(started)
    assert started.returncode == -15


@pytest.mark.parametrize(("trap", "code"), [("exit 3", 3), ("", -9)], ids=["polite", "deaf"])
async def test_it_ends_in_any_case(monkeypatch: pytest.MonkeyPatch, trap: str, code: int) -> None:
    monkeypatch.setattr(module, "TERMINATE_S", 0.3)
    started = await shell(f"trap '{trap}' TERM; echo ready; while :; do sleep 0.05; done")
    assert started.stdout is not None
    assert await started.stdout.read(6) == b"ready\n"
    await end(started)
    assert started.returncode == code


async def test_one_that_has_ended_is_left_alone() -> None:
    started = await shell("exit 5")
    await started.wait()
    await end(started)
    assert started.returncode == 5


async def test_one_that_ends_by_itself_meanwhile_keeps_its_exit_code() -> None:
    codes = []
    for _ in range(100):
        started = await shell("exit 5")
        await output(started)  # its end of the pipe is closed: it is ending just now
        await end(started)
        codes.append(started.returncode)
    assert set(codes) == {5}
