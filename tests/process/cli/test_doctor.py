"""`isoproxy doctor`: what a false Tor gives away."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from isoproxy.cli.doctor import parse_target
from isoproxy.doctor import processes_of
from isoproxy.errors import ConfigError
from tests.kit.service import Outcome, command, environment, running, system_tor
from tests.kit.socks_port import SocksPort, refusing, silent
from tests.kit.waiting import until

TIMEOUT_S = 30.0


def by_check(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in json.loads(outcome.out)["findings"]}


async def test_nothing_runs(tmp_path: Path) -> None:
    settings = ["--set", "tor.mode=system", "--set", "tor.socks=127.0.0.1:1"]
    outcome = await command(tmp_path, "doctor", *settings, "--set", "tor.control=none", "--json")
    found = by_check(outcome)
    assert outcome.code == 1
    assert found["isoproxy"]["advice"] == "isoproxy run"
    assert found["Tor's SocksPort"]["verdict"] == "failed"
    assert found["version of Tor"]["verdict"] == "unproven"
    assert found["address of listener default"]["verdict"] in ("ok", "failed")


async def test_what_cannot_be_asked_is_not_said_not_to_run(tmp_path: Path) -> None:
    """As where isoproxy runs as another user: its ports are not in the way, they are its own."""
    (tmp_path / "run").mkdir()
    server = await asyncio.start_unix_server(
        lambda _, writer: writer.close(), path=tmp_path / "run" / "admin"
    )
    async with server:
        for mode in ("system", "managed"):
            settings = ["--set", f"tor.mode={mode}", "--set", "tor.control=none"]
            outcome = await command(tmp_path, "doctor", *settings, "--json")
            found = by_check(outcome)
            assert (outcome.code, found["isoproxy"]["verdict"]) == (1, "failed")
            assert found["isoproxy"]["found"] == "it cannot be asked"
            assert found["isoproxy"]["advice"] != "isoproxy run"
            assert "address of listener default" not in found


async def test_ctrl_c_does_not_wait_for_the_streams(tmp_path: Path) -> None:
    async with SocksPort(silent) as tor, running(tmp_path, *system_tor(tor)) as service:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isoproxy", "doctor", *system_tor(tor)),
            *("--target", "a.example:80", "--timeout", "86400"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(tmp_path),
        )
        assert service.process.returncode is None
        await until(lambda: any(one.host == b"a.example" for one in tor.requests))
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(TIMEOUT_S):
            _, err = await process.communicate()
        assert (process.returncode, err) == (1, b"")


async def test_without_a_control_port_sharing_is_unproven_not_passed(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        outcome = await service.ask("doctor", *system_tor(tor), "--target", "a.example:80")
        assert outcome.code == 0, outcome.out
        lines = {line.split(":")[0].split(maxsplit=1)[1]: line for line in outcome.out.splitlines()}
        assert lines["circuits of separate identities"].startswith("unproven ")
        assert "-> set tor.control" in lines["circuits of separate identities"]
        assert lines["names in the client"].startswith("ok ")
        assert lines["names in isoproxy"].startswith("ok ")
        assert lines["connections of isoproxy"].startswith("ok ")
        names = [request.username for request in tor.requests if request.host == b"a.example"]
        assert len(names) == 3
    passwords = [request.password for request in tor.requests if request.host == b"a.example"]
    assert passwords[0] == passwords[1] != passwords[2]


async def test_a_tor_that_opens_nothing(tmp_path: Path) -> None:
    async with (
        SocksPort(serve=refusing(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")) as tor,
        running(tmp_path, *system_tor(tor)) as service,
    ):
        outcome = await service.ask("doctor", *system_tor(tor), "--json")
        assert outcome.code == 1
        assert "0x04" in by_check(outcome)["streams through isoproxy"]["found"]


async def test_it_looks_at_the_places_of_the_isoproxy_that_runs(tmp_path: Path) -> None:
    """Not at those of the user who asks: root, of a service with a user of its own."""
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)):
        (tmp_path / "state").mkdir(mode=0o755, exist_ok=True)
        (tmp_path / "state").chmod(0o755)
        asked = [*system_tor(tor), "--target", "a.example:80", "--json"]
        more = {"STATE_DIRECTORY": str(tmp_path / "another")}
        outcome = await command(tmp_path, "doctor", *asked, more=more)
    assert by_check(outcome)["state directory"]["advice"] == f"chmod 0700 {tmp_path}/state"


async def test_a_unix_listener_alone_is_unproven(tmp_path: Path) -> None:
    more = [f"listener.0.address=unix:{tmp_path}/socks", "listener.0.mode=0600"]
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor, *more)) as service:
        outcome = await service.ask("doctor", *system_tor(tor, *more), "--json")
        assert by_check(outcome)["streams through isoproxy"]["verdict"] == "unproven"
        assert by_check(outcome)["socket of listener default"]["verdict"] == "ok"


async def test_all_processes_are_looked_at(tmp_path: Path) -> None:
    """Streams are in another one than the one that answers."""
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        found = processes_of(json.loads((await service.ask("status", "--json")).out))
        assert len(found) == 2
        main, worker = found
        assert main == service.process.pid
        status = await asyncio.to_thread(Path(f"/proc/{worker}/status").read_text)
        assert f"PPid:\t{main}\n" in status


async def test_streams_go_through_a_listener_that_keeps_user_names_apart(tmp_path: Path) -> None:
    """At another one all tuples share a circuit, as they should."""
    more = ["listener.1.address=127.0.0.1:0", 'listener.0.isolate=["ClientAddr"]']
    async with (
        SocksPort() as tor,
        running(tmp_path, *system_tor(tor, *more), listeners=2) as service,
    ):
        asked = [*system_tor(tor, *more), "--target", "a.example:80", "--json"]
        outcome = await service.ask("doctor", *asked)
        assert by_check(outcome)["streams through isoproxy"]["verdict"] == "ok"
        passwords = [one.password for one in tor.requests if one.host == b"a.example"]
    assert passwords[0] == passwords[1] != passwords[2]


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", "a b:1", "h:\u0661"])
def test_bad_targets_are_usage_errors(text: str) -> None:
    with pytest.raises(ConfigError, match="--target"):
        parse_target(text)
