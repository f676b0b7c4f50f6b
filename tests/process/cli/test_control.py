"""`isoproxy status`, `newnym`, `explain` against a running process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from isoproxy.cli import control
from isoproxy.errors import ErrorKind
from tests.kit.service import command, connect, echoes, environment, running, system_tor
from tests.kit.socks_port import SocksPort, refusing


async def test_status_tells_of_listeners_and_flows(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        reader, writer = await connect(service.port(), user=b"MARKED")
        await reader.readexactly(10)
        writer.write(b"12345")
        await reader.readexactly(5)
        answer = json.loads((await service.ask("status", "--json")).out)
        (listener,) = answer["listeners"]
        assert (listener["name"], listener["open"]) == ("default", 1)
        assert listener["isolate"] == ["ClientAddr", "SOCKSAuth"]
        (flow,) = answer["flows"]
        assert (flow["state"], flow["bytes_up"], flow["bytes_down"]) == ("relaying", 5, 5)
        assert len(flow["key"]) == 6
        assert answer["tor"]["mode"] == "system"
        assert answer["tor"]["answers"] is True
        assert answer["counters"]["local_lookups_refused"] == 0
        text = (await service.ask("status")).out
        assert f"127.0.0.1:{service.port()}" in text
        assert flow["key"] in text
        assert "MARKED" not in text + json.dumps(answer)
        writer.close()


async def test_refusals_are_counted_by_kind(tmp_path: Path) -> None:
    async with (
        SocksPort(serve=refusing(b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")) as tor,
        running(tmp_path, *system_tor(tor)) as service,
    ):
        assert await echoes(service) is False
        answer = json.loads((await service.ask("status", "--json")).out)
        assert answer["counters"]["refusals"] == {ErrorKind.CONNECTION_REFUSED.value: 1}
        assert "connection_refused 1" in (await service.ask("status")).out


async def test_newnym_changes_every_key(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        before = json.loads((await service.ask("explain", "a", "b", "--json")).out)
        again = json.loads((await service.ask("explain", "a", "b", "--json")).out)
        assert before["key"] == again["key"]
        assert await echoes(service, user=b"a", password=b"b")
        renewed = await service.ask("newnym")
        assert (renewed.code, "epoch 1" in renewed.out) == (0, True)
        after = json.loads((await service.ask("explain", "a", "b", "--json")).out)
        assert before["key"] != after["key"]
        assert await echoes(service, user=b"a", password=b"b")
    asked = [request.password for request in tor.requests]
    assert len(set(asked)) == 2


async def test_an_isolation_id_in_a_file_is_renewed_alone(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:

        async def keys() -> list[str]:
            words = (("alice", "isoproxy"), ("bob", "isoproxy"))
            told = [json.loads((await service.ask("explain", *w, "--json")).out) for w in words]
            return [answer["key"] for answer in told]

        before = await keys()
        file = tmp_path / "alice"
        file.write_text("alice\n")
        file.chmod(0o644)
        refused = await service.ask("newnym", "--isolation-file", str(file))
        assert (refused.code, "chmod 600" in refused.err) == (2, True)
        assert await keys() == before
        file.chmod(0o600)
        renewed = await service.ask("newnym", "--isolation-file", str(file))
        assert (renewed.code, "streams of before: 0" in renewed.out) == (0, True)
        after = await keys()
        assert (after[0] != before[0], after[1]) == (True, before[1])
        wrong = await service.ask("newnym", "alice")
        assert (wrong.code, "label" in wrong.err) == (1, True)
        assert "alice" not in wrong.err + renewed.out + service.text()


async def test_without_onion_services_onions_says_how_to_have_one(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        outcome = await service.ask("onions")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("none; see [[onion_service]]")


async def test_explain_names_the_key_of_a_live_flow(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        reader, writer = await connect(service.port(), user=b"alice", password=b"secret")
        await reader.readexactly(10)
        outcome = await service.ask("explain", "alice", "secret", "example.com:80")
        answer = json.loads((await service.ask("explain", "alice", "secret", "--json")).out)
        assert answer["live_flows"] == 1
        assert answer["key"] in outcome.out
        assert "user name, password" in outcome.out
        other = json.loads((await service.ask("explain", "alice", "other", "--json")).out)
        assert other["live_flows"] == 0
        wrong = await service.ask("explain", "--listener", "nope", "a", "b")
        assert (wrong.code, "known: default" in wrong.err) == (1, True)
        writer.close()


async def test_explain_reads_what_must_not_be_in_the_list_of_processes(tmp_path: Path) -> None:
    async def explained(*arguments: str, given: bytes | None = None) -> dict[str, object]:
        outcome = await service.ask("explain", "--json", *arguments, given=given)
        assert outcome.code == 0, outcome.err
        answer = json.loads(outcome.out)
        assert isinstance(answer, dict)
        return answer

    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        plain = await explained("alice", "s e\u00e9")
        assert await explained("-", given="alice\ns e\u00e9\n".encode()) == plain
        assert await explained("-", given="alice\ns e\u00e9".encode()) == plain
        assert await explained("-", given="alice\ns e\u00e9\n\n".encode()) == plain
        full = await explained("alice", "s", "example.bit:80")
        assert await explained("-", given=b"alice\ns\nexample.bit:80\n") == full
        assert full["path"] != plain["path"]
        assert (await explained("", ""))["key"] == (await explained("-", given=b"\n\n"))["key"]
        named = await explained("-", "s")  # a user name like any other
        assert named["key"] not in (plain["key"], full["key"])
        binary = await explained("-", given=b"\xff\n\xfe\n")
        assert binary["separated_by"] == plain["separated_by"]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["alice"], b"s\n"),
        (["-"], b""),
        (["-"], b"alice\n"),
        (["-"], b"a" * 5000 + b"\nb\n"),
    ],
)
async def test_explain_says_what_it_expects(
    tmp_path: Path, arguments: list[str], given: bytes
) -> None:
    outcome = await command(tmp_path, "explain", *arguments, given=given)
    assert outcome.code == 2
    assert outcome.err.startswith(("isoproxy: explain", "isoproxy: standard input"))
    assert "alice" not in outcome.err


async def test_without_a_service_the_answer_says_what_to_do(tmp_path: Path) -> None:
    for arguments in (["status"], ["newnym"], ["explain", "a", "b"], ["reload"], ["onions"]):
        outcome = await command(tmp_path, *arguments)
        assert outcome.code == 1
        assert "start it with: isoproxy run" in outcome.err


async def test_watch_shows_it_again_until_interrupted(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isoproxy", "status", "--watch"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(tmp_path),
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            for _ in range(2):
                await process.stdout.readuntil(b"\x1b[H\x1b[2Jisoproxy ")
            process.send_signal(signal.SIGINT)
            shown, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert shown.endswith(b"\n")


async def test_at_a_terminal_watch_is_a_view_until_q(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isoproxy", "status", "--watch"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(tmp_path, {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}),
        )
        os.close(theirs)
        shown = b""
        async with asyncio.timeout(60):
            while b"epoch 0" not in shown or b"Identity" not in shown:
                shown += await asyncio.to_thread(os.read, ours, 65536)
            os.write(ours, b"q")
            rest = asyncio.create_task(asyncio.to_thread(drain, ours))
            assert await process.wait() == 0
            await rest


def drain(terminal: int) -> None:
    """Read what a program says to its end, which its terminal's other side waits for."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
    os.close(terminal)


def test_without_the_extra_a_terminal_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert control._view() is not None
    monkeypatch.delitem(sys.modules, "isoproxy.cli.watch")
    monkeypatch.setitem(sys.modules, "textual", None)
    assert control._view() is None


async def test_a_reader_that_leaves_is_no_error_worth_a_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isoproxy", "check", "--sample"),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
        env=environment(tmp_path),
    )
    os.close(writing)
    _, errors = await process.communicate()
    assert b"Traceback" not in errors
