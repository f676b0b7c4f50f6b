"""Onion services: what is asked of Tor, when they are published, keys that stay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control
from isoproxy.tor.onion import (
    OnionPort,
    OnionService,
    OnionStage,
    OnionState,
    client_key,
    read_key,
    write_key,
)
from tests.kit.waiting import until
from tests.unit.tor.scripted import UPLOADED, ScriptedTor

WEB = OnionPort(80, Endpoint.tcp("127.0.0.1", 8080))
KEY = "ED25519-V3:" + base64.b64encode(bytes(range(64))).decode()
SERVICE = "a" * 55 + "d"
CLIENT = "B" * 52
ADDED = f"250-ServiceID={SERVICE}\r\n250-PrivateKey={KEY}\r\n250 OK\r\n".encode()
NEW = "ADD_ONION NEW:ED25519-V3 Port=80,127.0.0.1:8080"
AGAIN = f"ADD_ONION {KEY} Port=80,127.0.0.1:8080"


@contextlib.asynccontextmanager
async def control_to(tor: ScriptedTor) -> AsyncIterator[Control]:
    control = Control(Endpoint.unix(str(tor.path)), backoff=Backoff(0.01, 0.05))
    control.start()
    try:
        yield control
    finally:
        await control.close()


def adds(tor: ScriptedTor) -> list[str]:
    return [command for command in tor.commands if command.startswith("ADD_ONION")]


async def test_a_new_service_gets_its_address_from_tor(tmp_path: Path) -> None:
    states: list[OnionState] = []
    async with ScriptedTor(tmp_path / "c", {NEW: ADDED}) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB])
        service.on_state(states.append)
        service.start()
        assert await service.wait_published() == SERVICE + ".onion"
        assert await service.wait_published() == service.address
        await service.withdraw()
        assert tor.commands[-1] == f"DEL_ONION {SERVICE}"
    assert [state.stage for state in states] == [OnionStage.PUBLISHED, OnionStage.WITHDRAWN]


async def test_a_service_is_published_when_a_directory_has_taken_its_descriptor(
    tmp_path: Path,
) -> None:
    async with ScriptedTor(tmp_path / "c", {NEW: ADDED}) as tor, control_to(tor) as control:
        tor.uploads = False
        service = OnionService(control, [WEB])
        service.start()
        await until(lambda: service.state.stage is OnionStage.UPLOADING)
        waiting = asyncio.create_task(service.wait_published())
        tor.say(UPLOADED % (b"b" * 56))
        await control.getinfo("version")
        assert service.state.stage is OnionStage.UPLOADING
        tor.say(UPLOADED % SERVICE.encode())
        assert await waiting == SERVICE + ".onion"
        tor.answers[AGAIN] = f"250-ServiceID={SERVICE}\r\n250 OK\r\n".encode()
        tor.hang_up()
        await until(lambda: service.state.stage is OnionStage.UPLOADING)
        await service.withdraw()


async def test_where_a_filter_hides_uploads_the_state_says_so(tmp_path: Path) -> None:
    refused = b"510 Command filtered\r\n"
    events = ["SIGNAL", "STATUS_CLIENT", "CIRC", "HS_DESC"]
    answers = {NEW: ADDED, "SETEVENTS " + " ".join(events): refused}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        tor.uploads = False
        service = OnionService(control, [WEB])
        service.start()
        await control.wait_ready()
        assert "HS_DESC" not in control.hears
        assert await service.wait_published() == SERVICE + ".onion"
        assert "hidden by a filter" in str(service.state.problem)
        await service.withdraw()


async def test_after_a_reconnect_the_same_key_is_published(tmp_path: Path) -> None:
    answers = {NEW: ADDED, AGAIN: f"250-ServiceID={SERVICE}\r\n250 OK\r\n".encode()}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB])
        service.start()
        await service.wait_published()
        for _ in range(3):
            tor.hang_up()
            await until(lambda: service.state.stage is OnionStage.WAITING)
            await service.wait_published()
        assert adds(tor) == [NEW, AGAIN, AGAIN, AGAIN]
        await service.withdraw()


async def test_all_that_a_service_can_have_is_asked_for(tmp_path: Path) -> None:
    ports = [WEB, OnionPort(81, Endpoint.tcp("::1", 1)), OnionPort(82, Endpoint.unix("/run/x"))]
    wanted = (
        "ADD_ONION NEW:ED25519-V3 Flags=V3Auth Port=80,127.0.0.1:8080 Port=81,[::1]:1 "
        f"Port=82,unix:/run/x ClientAuthV3={CLIENT}"
    )
    async with ScriptedTor(tmp_path / "c", {wanted: ADDED}) as tor, control_to(tor) as control:
        service = OnionService(control, ports, clients=["descriptor:x25519:" + CLIENT.lower()])
        service.start()
        await service.wait_published()
        await service.withdraw()
        assert adds(tor) == [wanted]


async def test_a_refusal_is_tried_again(tmp_path: Path) -> None:
    answers = {NEW: b"550 Onion address collision\r\n"}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB], backoff=Backoff(0.02, 0.02))
        service.start()
        await until(lambda: service.state.stage is OnionStage.REFUSED)
        assert "another program" in str(service.state.problem)
        tor.answers[NEW] = ADDED
        await service.wait_published()
        assert service.state.problem is None
        await service.withdraw()


@pytest.mark.parametrize(
    "answer",
    [
        b"250 OK\r\n",
        b"250-ServiceID=short\r\n250 OK\r\n",
        b"250-ServiceID=" + SERVICE.encode() + b"\r\n250-PrivateKey=RSA1024:AAAA\r\n250 OK\r\n",
        b"250-ServiceID=" + SERVICE.encode() + b"\r\n250-PrivateKey=ED25519-V3:!\r\n250 OK\r\n",
    ],
)
async def test_a_strange_answer_publishes_nothing(tmp_path: Path, answer: bytes) -> None:
    async with ScriptedTor(tmp_path / "c", {NEW: answer}) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB])
        service.start()
        await until(lambda: service.state.stage is OnionStage.REFUSED)
        assert service.address is None
        await service.withdraw()


async def test_a_key_file_is_made_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "key"
    answers = {NEW: ADDED, AGAIN: f"250-ServiceID={SERVICE}\r\n250 OK\r\n".encode()}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        for _ in range(2):
            service = OnionService(control, [WEB], key_file=file)
            service.start()
            await service.wait_published()
            await service.withdraw()
        assert adds(tor) == [NEW, AGAIN]
    assert read_key(file) == KEY
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert set(os.listdir(tmp_path)) - {"c"} == {"key"}  # asyncio removes sockets from 3.13 on


async def test_a_key_that_another_one_stored_meanwhile_is_used(tmp_path: Path) -> None:
    """Not a new service at a new address for a moment, again and again."""
    answers = {NEW: ADDED, AGAIN: f"250-ServiceID={SERVICE}\r\n250 OK\r\n".encode()}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB], key_file=tmp_path / "key")
        write_key(tmp_path / "key", KEY)
        service.start()
        await until(lambda: service.state.stage is OnionStage.PUBLISHED)
        assert adds(tor) == [AGAIN]
        await service.withdraw()


async def test_a_key_that_cannot_be_stored_is_given_up(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c", {NEW: ADDED}) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB], key_file=tmp_path / "missing" / "key")
        service.start()
        await until(lambda: service.state.stage is OnionStage.REFUSED)
        assert "No such file" in str(service.state.problem)
        assert tor.commands[-1] == f"DEL_ONION {SERVICE}"
        await service.withdraw()


async def test_no_key_is_logged_or_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedTor(tmp_path / "c", {NEW: ADDED}) as tor, control_to(tor) as control:
        service = OnionService(control, [WEB])
        service.start()
        await service.wait_published()
        assert KEY[11:] not in repr(service) + repr(service.state)
        await service.withdraw()
    assert KEY[11:] not in caplog.text
    assert SERVICE not in caplog.text


def test_an_older_key_file_is_never_overwritten(tmp_path: Path) -> None:
    write_key(tmp_path / "key", KEY)
    with pytest.raises(FileExistsError):
        write_key(tmp_path / "key", "ED25519-V3:other")
    assert read_key(tmp_path / "key") == KEY
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_of_tors_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "hs_ed25519_secret_key"
    file.write_bytes(b"== ed25519v1-secret: type0 ==\0\0\0" + bytes(range(64)))
    file.chmod(0o600)
    assert read_key(file) == KEY
    assert read_key(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (KEY.encode(), 0o644),
        (KEY.encode(), 0o640),
        (b"", 0o600),
        (b"ED25519-V3:AAAA", 0o600),
        (b"RSA1024:" + KEY.encode()[11:], 0o600),
        (KEY.encode() + b"\nmore", 0o600),
        (b"== ed25519v1-secret: type0 ==\0\0\0" + bytes(63), 0o600),
        (b"\xff" * 2000, 0o600),
    ],
)
def test_a_key_file_that_will_not_do_is_refused(tmp_path: Path, content: bytes, mode: int) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match="key file") as raised:
        read_key(file)
    assert KEY[11:40] not in str(raised.value)


def test_a_key_file_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="must be a file"):
        read_key(tmp_path / "pipe")


def test_a_key_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "key", KEY)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(ConfigError, match="symbolic link"):
        read_key(tmp_path / "link")


@pytest.mark.parametrize(
    "text", ["", "B" * 51, "B" * 53, "1" * 52, "x25519:" + CLIENT, CLIENT + " A"]
)
def test_a_client_key_is_checked(text: str) -> None:
    with pytest.raises(ConfigError, match="base32"):
        client_key(text)


def test_a_port_is_checked() -> None:
    with pytest.raises(ConfigError, match="between"):
        OnionPort(0, Endpoint.tcp("127.0.0.1", 1))
    with pytest.raises(ConfigError, match="target"):
        OnionPort(80, Endpoint.parse("none"))
    with pytest.raises(ConfigError, match="spaces"):
        OnionPort(80, Endpoint.unix("/run/a b"))


async def test_a_service_is_checked() -> None:
    control = Control(Endpoint.parse("none"))
    with pytest.raises(ConfigError, match="at least one port"):
        OnionService(control, [])
    with pytest.raises(ConfigError, match="one target for each port"):
        OnionService(control, [WEB, WEB])
    with pytest.raises(ConfigError, match="control port"):
        OnionService(control, [WEB]).start()
