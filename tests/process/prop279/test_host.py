"""The host: whatever a plugin does, each query ends, and others' queries do not notice."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.net.target import Target
from prop279.host import Limits, PluginHost, scrub
from prop279.protocol import Environment
from tests.kit.waiting import until

_PROGRAM = str(Path(__file__).with_name("misbehaving.py"))


def host(mode: str = "good", **limits: float) -> PluginHost:
    quick: dict[str, float] = {"first_wait": 0.02, "query_timeout": 5.0, "end_timeout": 0.2}
    return PluginHost(
        [sys.executable, "-S", _PROGRAM, mode],
        Environment(state=Path("/state")),
        Limits(**{**quick, **limits}),  # type: ignore[arg-type]  # whole numbers where needed
    )


async def kind_of(plugin: PluginHost, name: str) -> ErrorKind:
    with pytest.raises(NamingError) as caught:
        await plugin.resolve(name, b"id")
    return caught.value.kind


async def test_asks_and_answers() -> None:
    async with host() as plugin:
        assert await plugin.resolve("example.bit", b"6f-1") == Target("example.test", 0)
        assert await plugin.resolve("env.bit", b"6f-1") == Target("state.test", 0)
        assert plugin.pending == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("status1.bit", ErrorKind.NAME_UNVERIFIABLE),
        ("status2.bit", ErrorKind.NAME_NEVER_SENT_TO_TOR),
        ("status3.bit", ErrorKind.NAME_ABSENT),
        ("status4.bit", ErrorKind.NAME_TIMEOUT),
        ("status77.bit", ErrorKind.NAME_UNVERIFIABLE),
        ("spaces.bit", ErrorKind.NAME_INVALID_VALUE),
        ("empty.bit", ErrorKind.NAME_INVALID_VALUE),
        ("a b.bit", ErrorKind.NAME_SYNTAX),
        ("a\nCANCEL 1.bit", ErrorKind.NAME_SYNTAX),
        ("caf\xe9.bit", ErrorKind.NAME_SYNTAX),
    ],
)
async def test_failures(name: str, kind: ErrorKind) -> None:
    async with host() as plugin:
        assert await kind_of(plugin, name) is kind
        assert await plugin.resolve("next.bit", b"id") == Target("next.test", 0)
        assert plugin.starts == 1


async def test_second_answers_and_strange_lines_are_ignored() -> None:
    async with host() as plugin:
        assert await plugin.resolve("twice.bit", b"id") == Target("192.0.2.1", 0, True)
        assert await plugin.resolve("strange.bit", b"id") == Target("ok.test", 0)
        assert plugin.starts == 1


async def test_a_query_that_never_answers_delays_no_other() -> None:
    async with host(query_timeout=60.0) as plugin:
        slow = asyncio.create_task(kind_of(plugin, "never.bit"))
        await asyncio.gather(*(plugin.resolve(f"n{i}.bit", b"id") for i in range(100)))
        assert not slow.done()
        assert plugin.starts == 1
    assert await slow is not ErrorKind.NAME_TIMEOUT


async def test_a_caller_who_goes_away_cancels_its_query() -> None:
    async with host() as plugin:
        await plugin.resolve("first.bit", b"id")
        task = asyncio.create_task(plugin.resolve("never.bit", b"id"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert plugin.pending == 0
        assert await plugin.resolve("next.bit", b"id") == Target("next.test", 0)


async def test_a_plugin_that_dies_is_started_anew() -> None:
    async with host() as plugin:
        others = [asyncio.create_task(kind_of(plugin, "never.bit")) for _ in range(3)]
        await asyncio.sleep(0)
        assert await kind_of(plugin, "die.bit") is ErrorKind.NAME_BACKEND_DOWN
        assert [await other for other in others] == [ErrorKind.NAME_BACKEND_DOWN] * 3
        assert await plugin.resolve("next.bit", b"id") == Target("next.test", 0)
        assert plugin.starts == 2


async def test_a_killed_plugin_is_started_anew() -> None:
    async with host() as plugin:
        await plugin.resolve("first.bit", b"id")
        assert plugin._process is not None
        plugin._process.kill()
        await plugin._process.wait()
        await asyncio.sleep(0.05)
        assert await plugin.resolve("next.bit", b"id") == Target("next.test", 0)


async def test_a_flooding_plugin_is_ended_and_started_anew() -> None:
    async with host() as plugin:
        assert await kind_of(plugin, "flood.bit") is ErrorKind.NAME_BACKEND_DOWN
        assert await plugin.resolve("next.bit", b"id") == Target("next.test", 0)
        assert plugin.starts == 2


async def test_a_frozen_plugin_is_started_anew_after_some_timeouts() -> None:
    async with host("frozen", query_timeout=0.2, silent_timeouts=2, end_timeout=0.2) as plugin:
        await until(lambda: plugin.is_ready)
        for _ in range(2):
            assert await kind_of(plugin, "a.bit") is ErrorKind.NAME_TIMEOUT
        await until(lambda: plugin.starts >= 2)


@pytest.mark.parametrize("mode", ["bad-init", "version", "refusing", "short", "no-init"])
async def test_a_plugin_that_does_not_greet_is_tried_again_with_growing_waits(mode: str) -> None:
    async with host(mode, init_timeout=0.2, query_timeout=1.0, first_wait=0.05) as plugin:
        waiting = asyncio.create_task(kind_of(plugin, "a.bit"))
        kind = await waiting
        assert kind in (ErrorKind.NAME_TIMEOUT, ErrorKind.NAME_BACKEND_DOWN)
        await until(lambda: plugin.starts >= 2)
        assert plugin.starts < 12


async def test_a_program_that_is_not_there_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    plugin = PluginHost(["/nonexistent/plugin"], limits=Limits(first_wait=0.02, query_timeout=0.2))
    async with plugin:
        assert await kind_of(plugin, "a.bit") is ErrorKind.NAME_BACKEND_DOWN
    assert "plugin_cannot_be_started" in caplog.text


async def test_no_more_than_so_many_queries_are_under_way() -> None:
    async with host(queries=3) as plugin:
        waiting = [asyncio.create_task(plugin.resolve("never.bit", b"id")) for _ in range(3)]
        await asyncio.sleep(0)
        assert await kind_of(plugin, "a.bit") is ErrorKind.BUSY
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_held_query_that_was_given_up_as_the_program_ended_harms_nobody() -> None:
    plugin = host()
    held = [asyncio.create_task(plugin.resolve(f"{name}.bit", b"id")) for name in "ab"]
    await asyncio.sleep(0)
    held[0].cancel()  # it has not run since when the program is ready, and gone
    plugin._ready = True
    plugin._send_held()
    with pytest.raises(asyncio.CancelledError):
        await held[0]
    with pytest.raises(NamingError):
        await held[1]


async def test_a_program_that_does_not_read_is_not_written_to_without_bound() -> None:
    async with host("frozen", unread=1000, queries=100_000, query_timeout=1.0) as plugin:
        await until(lambda: plugin.is_ready)
        name = "a" * 200 + ".bit"
        results = await asyncio.gather(
            *(plugin.resolve(name, b"id") for _ in range(1000)), return_exceptions=True
        )
        kinds = {error.kind for error in results if isinstance(error, NamingError)}
        assert ErrorKind.BUSY in kinds
        assert len(results) == 1000


async def test_a_deaf_program_is_killed_at_the_end() -> None:
    began = time.monotonic()
    async with host("deaf", end_timeout=0.3) as plugin:
        await until(lambda: plugin.is_ready)
        assert plugin._process is not None
        pid = plugin._process.pid
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie, which has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


async def test_what_a_shell_started_is_ended_with_it(tmp_path: Path) -> None:
    script = f'echo $$ >> {tmp_path}/pids; "$0" -S "$1" "$2" & echo $! >> {tmp_path}/pids; wait'
    command = ["/bin/sh", "-c", script, sys.executable, _PROGRAM, "deaf"]
    limits = Limits(first_wait=0.02, query_timeout=0.2, silent_timeouts=1, end_timeout=0.2)
    async with PluginHost(command, limits=limits) as plugin:
        await until(lambda: plugin.is_ready)
        assert await kind_of(plugin, "a.bit") is ErrorKind.NAME_TIMEOUT
        await until(lambda: plugin.starts >= 2 and plugin.is_ready)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 4
    await until(lambda: not any(map(runs, pids)))


async def test_a_shells_child_has_time_to_end_by_itself(tmp_path: Path) -> None:
    child = "import sys, time; print('INIT 1 0', flush=True); sys.stdin.read(); time.sleep(0.3)"
    script = f'trap "exit" TERM; (trap "" TERM; "$0" -S -c "$1"; touch {tmp_path}/done) & wait'
    command = ["/bin/sh", "-c", script, sys.executable, child]
    async with PluginHost(command, limits=Limits(end_timeout=30)) as plugin:
        await until(lambda: plugin.is_ready)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.25])
async def test_it_ends_whatever_it_is_doing(moment: float) -> None:
    """Dying, waiting for the next start, starting: closing the host is never swallowed."""
    async with asyncio.timeout(30), host("short", first_wait=0.02, end_timeout=0.05) as plugin:
        await asyncio.sleep(moment)
    assert plugin.pending == 0
    async with asyncio.timeout(30), host("deaf", query_timeout=0.02, end_timeout=0.1) as plugin:
        await until(lambda: plugin.is_ready)
        for _ in range(3):
            await kind_of(plugin, "a.bit")
        await asyncio.sleep(moment)


def said_by_plugin(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["fields"]) for record in caplog.records if record.msg == "plugin_says"]


async def test_what_it_prints_is_logged_scrubbed_and_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="isoproxy"):
        async with host(stderr_lines=5) as plugin:
            await plugin.resolve("example.bit", b"6f-1")
            await until(lambda: len(said_by_plugin(caplog)) >= 5, 30)
            await asyncio.sleep(0.1)  # for what should not come
    said = said_by_plugin(caplog)
    assert len(said) == 5
    assert "could not look up [scrubbed] for id [scrubbed] at [scrubbed]" in said[0]
    for secret in ("secret", "6f", "127"):
        assert secret not in str(said)


def test_scrub() -> None:
    assert scrub(b"no server d/example [::1] caf\xe9 'x' 12") == (
        "no server [scrubbed] [scrubbed] caf[scrubbed] [scrubbed] [scrubbed]"
    )
    assert len(scrub(b"a" * 1000)) == 200
