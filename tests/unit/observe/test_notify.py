"""systemd's side played by a datagram socket and by pipes of listening sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.observe.notify import Notifier, inherited_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(5)
        yield path, sock


def test_the_life_of_a_service(manager: tuple[str, socket.socket]) -> None:
    path, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    notifier.ready("serving")
    notifier.status("degraded")
    notifier.reloading()
    notifier.stopping()
    assert sock.recv(1000) == b"READY=1\nSTATUS=serving"
    assert sock.recv(1000) == b"STATUS=degraded"
    assert sock.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert sock.recv(1000) == b"STOPPING=1"


def test_an_abstract_socket() -> None:
    name = f"isoproxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).stopping()
        assert sock.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("path", ["", "relative", "/nonexistent/socket"])
def test_without_a_manager_nothing_happens(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready("serving")


@pytest.mark.virtual_clock
async def test_the_watchdog_is_fed_by_the_loop(manager: tuple[str, socket.socket]) -> None:
    path, sock = manager
    loop = asyncio.get_running_loop()
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})
    notifier.start_watchdog(loop)
    await asyncio.sleep(31)
    notifier.close()
    await asyncio.sleep(60)
    sock.setblocking(False)
    fed = 0
    while True:
        try:
            assert sock.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            break
        fed += 1
    assert fed == 3  # at 0 s, 15 s and 30 s


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
    ],
)
def test_the_watchdogs_period(environment: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environment).watchdog_s == seconds


def test_sockets_are_taken_over_by_name() -> None:
    originals = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [sock.getsockname()[1] for sock in originals]
    # three descriptors in a row, as systemd passes them
    first = 200
    for index, sock in enumerate(originals):
        os.dup2(sock.fileno(), first + index, inheritable=True)
        sock.close()
    environment = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "socks-a:socks-b:socks-a",
        "OTHER": "stays",
    }
    sockets = inherited_sockets(environment, first=first)
    try:
        found = {name: [s.getsockname()[1] for s in socks] for name, socks in sockets.items()}
        assert found == {"socks-a": [ports[0], ports[2]], "socks-b": [ports[1]]}
        assert not any(os.get_inheritable(s.fileno()) for socks in sockets.values() for s in socks)
        assert environment == {"OTHER": "stays"}
    finally:
        for socks in sockets.values():
            for sock in socks:
                sock.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "100000"},
    ],
)
def test_sockets_that_are_not_for_us_are_left_alone(environment: dict[str, str]) -> None:
    assert inherited_sockets(environment) == {}


def test_a_descriptor_that_is_no_socket_is_a_sentence() -> None:
    reading, writing = os.pipe()
    environment = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "socks-default",
    }
    with pytest.raises(OperationError, match="socks-default, is no socket"):
        inherited_sockets(environment, first=reading)
    os.close(reading)
    os.close(writing)
