"""The guard before the system's resolver; the hook itself only in a child process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isoproxy.errors import PolicyRefusal
from isoproxy.net.resolver_guard import ResolverGuard


@pytest.mark.parametrize("host", ["localhost", "marked.example", b"marked.example", "1.2.3", ""])
def test_names_are_refused_and_counted(host: object) -> None:
    guard = ResolverGuard()
    for event in ("socket.getaddrinfo", "socket.gethostbyname"):
        with pytest.raises(PolicyRefusal) as caught:
            guard.hook(event, (host, 80, 0, 0, 0))
        assert "marked" not in str(caught.value)
    assert guard.refused == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo", b"10.0.0.1", None])
def test_literals_pass(host: object) -> None:
    guard = ResolverGuard()
    guard.hook("socket.getaddrinfo", (host, 80, 0, 0, 0))
    guard.hook("open", ("/etc/hosts", "r", 0))
    assert guard.refused == 0


def test_the_name_of_an_address_is_not_asked_for() -> None:
    guard = ResolverGuard()
    with pytest.raises(PolicyRefusal):
        guard.hook("socket.getnameinfo", (("10.0.0.1", 80),))
    with pytest.raises(PolicyRefusal):
        guard.hook("socket.gethostbyaddr", ("10.0.0.1",))
    assert guard.refused == 2


@pytest.mark.parametrize("event", ["socket.connect", "socket.bind", "socket.sendto"])
def test_addresses_of_sockets(event: str) -> None:
    guard = ResolverGuard()
    for address in (("127.0.0.1", 1), ("", 1), ("::1", 1, 0, 0), "/run/x", b"\0x", (16, 0)[:0]):
        guard.hook(event, (None, address))
    assert guard.refused == 0
    with pytest.raises(PolicyRefusal):
        guard.hook(event, (None, ("localhost", 1)))
    assert guard.refused == 1


PROGRAM = """
import asyncio, socket, urllib.request
from isoproxy.errors import PolicyRefusal
from isoproxy.net.resolver_guard import ResolverGuard
guard = ResolverGuard(); guard.install()
attempts = [
    lambda: socket.getaddrinfo("localhost", 80),
    lambda: socket.gethostbyname("localhost"),
    lambda: socket.gethostbyname_ex("localhost"),
    lambda: socket.gethostbyaddr("127.0.0.1"),
    lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
    lambda: socket.create_connection(("localhost", 1)),
    lambda: socket.socket().connect(("localhost", 1)),
    lambda: urllib.request.urlopen("http://localhost:1/"),
    lambda: asyncio.run(asyncio.open_connection("localhost", 1)),
]
for number, attempt in enumerate(attempts):
    try:
        attempt()
    except PolicyRefusal:
        print(number, "refused")
    except OSError as error:
        print(number, type(error).__name__)
with socket.create_server(("127.0.0.1", 0)) as server:
    asyncio.run(asyncio.open_connection(*server.getsockname()))
    print("literal ok", guard.refused)
"""


def test_every_way_of_python_to_ask_the_resolver_is_noticed() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines == [*(f"{number} refused" for number in range(9)), "literal ok 9"]
