"""The control connection: authenticates, follows events, survives Tor, leaks nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError, ErrorKind, LocalProtocolError, OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control import session as control_session
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.events import Bootstrap
from tests.kit.waiting import until
from tests.unit.tor.scripted import ScriptedTor

CIRC = b"650 CIRC %d %s $9CF77A9F7190283AD919645650CE0BD937029630~exit2 PURPOSE=GENERAL\r\n"


@contextlib.asynccontextmanager
async def connected(
    path: Path, *, password: str | None = None, own: bool = False
) -> AsyncIterator[Control]:
    endpoint = Endpoint.unix(str(path))
    quick = Backoff(0.01, 0.05)
    control = Control(endpoint, password=password, own=own, backoff=quick)
    control.start()
    try:
        async with asyncio.timeout(10):
            await control.wait_ready()
        yield control
    finally:
        await control.close()


async def test_a_new_connection_learns_version_and_bootstrap(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        assert control.version == "0.4.9.11"
        assert control.bootstrap == Bootstrap(100, "done", "Done")
        assert control.circuits() == ()
        assert "SETEVENTS SIGNAL STATUS_CLIENT CIRC HS_DESC" in tor.commands
        assert "TAKEOWNERSHIP" not in tor.commands


async def test_events_are_asked_for_before_anything_is_read(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c", own=True):
        wanted = ["TAKEOWNERSHIP", "SETEVENTS SIGNAL STATUS_CLIENT CIRC HS_DESC", "GETINFO version"]
        assert [command for command in tor.commands if command in wanted] == wanted


async def test_newnym_and_bootstrap_reach_their_observers(tmp_path: Path) -> None:
    newnyms: list[int] = []
    steps: list[Bootstrap] = []
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        leave = control.on_newnym(lambda: newnyms.append(1))
        control.on_bootstrap(steps.append)
        tor.say(b"650 SIGNAL NEWNYM\r\n650 SIGNAL RELOAD\r\n650 SIGNAL NEWNYM \r\n")
        tor.say(b'650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=5 TAG=conn SUMMARY="Conn"\r\n')
        await until(lambda: steps)
        assert newnyms == [1]
        assert control.signals == 2
        assert steps == [Bootstrap(5, "conn", "Conn")]
        leave()
        tor.say(b"650 SIGNAL NEWNYM\r\n")
        await control.getinfo("version")
        assert newnyms == [1]


async def test_circuits_come_and_go_with_events(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        tor.say(CIRC % (1, b"BUILT") + CIRC % (2, b"EXTENDED") + CIRC % (3, b"UNHEARD"))
        await control.getinfo("version")
        assert [circuit.id for circuit in control.circuits()] == ["1", "2"]
        tor.say(CIRC % (1, b"CLOSED"))
        await control.getinfo("version")
        assert [circuit.id for circuit in control.circuits()] == ["2"]


async def test_a_refresh_reads_one_line_or_many(tmp_path: Path) -> None:
    one = b'7 BUILT PURPOSE=GENERAL SOCKS_USERNAME="a" SOCKS_PASSWORD="\\377"'
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        tor.answers["GETINFO circuit-status"] = b"250-circuit-status=" + one + b"\r\n250 OK\r\n"
        (only,) = await control.refresh_circuits()
        assert (only.username, only.password) == (b"a", b"\xff")
        tor.answers["GETINFO circuit-status"] = (
            b"250+circuit-status=\r\n" + one + b"\r\n8 BUILT\r\nnonsense\r\n.\r\n250 OK\r\n"
        )
        assert [circuit.id for circuit in await control.refresh_circuits()] == ["7", "8"]
        assert [circuit.id for circuit in control.circuits()] == ["7", "8"]


async def test_an_upload_of_a_descriptor_reaches_its_observers(tmp_path: Path) -> None:
    heard: list[str] = []
    address, relay = "a2" * 28, "A1" * 20
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        leave = control.on_upload(heard.append)
        for action in ("UPLOAD", "UPLOADED", "FAILED"):
            tor.say(f"650 HS_DESC {action} {address} UNKNOWN ${relay}~exit2\r\n".encode())
        await control.getinfo("version")
        assert heard == [address]
        leave()


async def test_a_filter_in_front_of_tor_costs_only_what_it_refuses(tmp_path: Path) -> None:
    refused = b"510 Command filtered\r\n"
    answers = {
        "SETEVENTS SIGNAL STATUS_CLIENT CIRC HS_DESC": refused,
        "SETEVENTS SIGNAL": refused,
        "SETEVENTS STATUS_CLIENT CIRC": refused,
        "SETEVENTS STATUS_CLIENT HS_DESC": refused,
        "GETINFO circuit-status": refused,
    }
    async with ScriptedTor(tmp_path / "c", answers), connected(tmp_path / "c") as control:
        assert control.hears == {"STATUS_CLIENT"}
        assert control.version == "0.4.9.11"
        with pytest.raises(OperationError, match="does not tell circuit-status"):
            await control.refresh_circuits()


async def test_a_reply_to_no_request_is_dropped(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        tor.say(b"250-version=EVIL\r\n250 OK\r\n")
        await asyncio.sleep(0.05)
        assert await control.getinfo("version") == b"0.4.9.11"


async def test_a_cancelled_request_does_not_shift_the_replies(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        tor.answers["GETINFO slow"] = b""
        slow = asyncio.create_task(control.message("GETINFO slow"))
        await until(lambda: "GETINFO slow" in tor.commands)
        slow.cancel()
        await asyncio.wait([slow])
        following = asyncio.create_task(control.getinfo("version"))
        tor.say(b"250-slow=late\r\n250 OK\r\n")
        assert await following == b"0.4.9.11"


async def test_silence_ends_the_connection_and_a_new_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_session, "REPLY_S", 0.05)
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        tor.answers["GETINFO silent"] = b""
        with pytest.raises(OperationError, match="did not answer"):
            await control.message("GETINFO silent")
        await until(lambda: control.connects == 2)
        assert await control.getinfo("version") == b"0.4.9.11"


async def test_too_many_requests_at_once_are_refused(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        tor.answers["GETINFO silent"] = b""
        many = [asyncio.create_task(control.message("GETINFO silent")) for _ in range(65)]
        results = asyncio.gather(*many, return_exceptions=True)
        await until(lambda: tor.commands.count("GETINFO silent") == 64)
        tor.hang_up()
        kinds = [error.kind for error in await results if isinstance(error, OperationError)]
        assert kinds.count(ErrorKind.BUSY) == 1
        assert kinds.count(ErrorKind.TOR_UNREACHABLE) == 64


async def test_a_command_is_one_line(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c"), connected(tmp_path / "c") as control:
        for text in ("GETINFO version\r\nSIGNAL HALT", "GETINFO\nversion", "", "A\0"):
            with pytest.raises(LocalProtocolError):
                await control.message(text)


async def test_fifty_reconnects_leak_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    newnyms: list[int] = []
    threads = set(threading.enumerate())
    async with ScriptedTor(tmp_path / "c") as tor, connected(tmp_path / "c") as control:
        control.on_newnym(lambda: newnyms.append(1))
        for _ in range(5):
            await reconnect(tor, control)
        tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            await reconnect(tor, control)
        assert len(asyncio.all_tasks()) <= tasks
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert len(newnyms) == 55
        # the workers of the loop's executor stay, and are bounded by it
        added = [t for t in threading.enumerate() if t not in threads]
        assert all(thread.name.startswith("asyncio_") for thread in added)
        assert len(added) <= min(32, (os.cpu_count() or 1) + 4)


async def reconnect(tor: ScriptedTor, control: Control) -> None:
    before = control.connects
    tor.hang_up()
    await until(lambda: control.connects > before and control.state.phase is Phase.READY)


async def test_tor_may_come_later_and_go_meanwhile(tmp_path: Path) -> None:
    states: list[ControlState] = []
    control = Control(Endpoint.unix(str(tmp_path / "c")), backoff=Backoff(0.01, 0.02))
    control.on_state(states.append)
    control.start()
    await until(lambda: control.state.phase is Phase.BACKING_OFF)
    assert "nothing listens" in str(control.state)
    async with ScriptedTor(tmp_path / "c"):
        await until(lambda: control.state.phase is Phase.READY)
    await until(lambda: control.state.phase is Phase.BACKING_OFF)
    with pytest.raises(OperationError, match="not connected"):
        await control.signal_newnym()
    await control.close()
    assert str(control.state) == "closed"
    assert Phase.CONNECTING in [state.phase for state in states]


async def test_without_a_control_port_all_is_quiet() -> None:
    control = Control(Endpoint.parse("none"))
    control.start()
    assert str(control.state) == "off"
    assert control.circuits() == ()
    for attempt in (control.wait_ready(), control.signal_newnym(), control.getinfo("version")):
        with pytest.raises(OperationError, match="not connected"):
            await attempt
    await control.close()


async def test_a_tcp_control_port_is_spoken_to_alike(tmp_path: Path) -> None:
    tor = ScriptedTor(tmp_path / "unused")
    server = await asyncio.start_server(tor._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    control = Control(Endpoint.tcp("127.0.0.1", port))
    control.start()
    async with asyncio.timeout(10):
        await control.wait_ready()
    assert control.version == "0.4.9.11"
    await control.close()
    server.close()
    await until(lambda: not tor.connections)


async def test_closing_during_a_handshake_leaves_no_thread_behind(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c", {"PROTOCOLINFO 1": b""}) as tor:
        control = Control(Endpoint.unix(str(tmp_path / "c")))
        control.start()
        await until(lambda: tor.commands)
        async with asyncio.timeout(30):
            await control.close()
        await until(lambda: not tor.connections)


async def test_a_password_with_a_line_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="printable"):
        Control(Endpoint.parse("none"), password="a\r\nSIGNAL HALT")


async def test_nothing_that_came_over_the_line_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        ScriptedTor(tmp_path / "c") as tor,
        connected(tmp_path / "c") as control,
    ):
        tor.say(b'650 STREAM 1 NEW 0 marked.example:80 SOCKS_USERNAME="marked"\r\n')
        tor.say(b'650 CIRC 1 BUILT SOCKS_USERNAME="marked" SOCKS_PASSWORD="marked"\r\n')
        tor.say(b"250 marked\r\n")
        await until(control.circuits)
        await control.getinfo("version")
        tor.say(b"marked is no control message\r\n")
        await until(lambda: control.connects == 2)
    assert "control_port" in caplog.text
    assert "marked" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("stem")]
