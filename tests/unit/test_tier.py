"""The gate of this tier lets through what stays in the process; a loop is of one thread."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.conftest import Gate, OutsideTheUnitTier


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("subprocess.Popen", ("tor", ["tor"], None, None)),
        ("os.posix_spawn", ("/bin/true", [], {})),
        ("os.fork", ()),
        ("socket.connect", (None, ("192.0.2.1", 80))),
        ("socket.connect", (None, ("2001:db8::1", 80, 0, 0))),
        ("socket.sendto", (None, ("192.0.2.1", 53))),
        ("socket.getaddrinfo", ("example.com", 80, 0, 0, 0)),
        ("socket.getaddrinfo", (b"192.0.2.1", 80, 0, 0, 0)),
    ],
)
def test_programs_and_other_machines_are_refused(event: str, arguments: tuple[object, ...]) -> None:
    gate = Gate()
    gate.hook(event, arguments)
    gate.seen = []
    with pytest.raises(OutsideTheUnitTier, match=event):
        gate.hook(event, arguments)
    assert len(gate.seen) == 1


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("/etc/hosts", "r", 0)),
        ("socket.connect", (None, "/run/tor/socks")),
        ("socket.connect", (None, b"\0abstract")),
        ("socket.connect", (None, ("127.1.2.3", 80))),
        ("socket.connect", (None, ("::1", 80, 0, 0))),
        ("socket.sendmsg", (None, None)),
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 80, 0, 0, 0)),
    ],
)
def test_what_stays_inside_passes(event: str, arguments: tuple[object, ...]) -> None:
    gate = Gate()
    gate.seen = []
    gate.hook(event, arguments)
    assert gate.seen == []


@pytest.mark.parametrize("virtual", [False, pytest.param(True, marks=pytest.mark.virtual_clock)])
async def test_other_threads_are_refused_by_a_loop(virtual: bool) -> None:
    loop = asyncio.get_running_loop()
    for schedule in (loop.call_soon, lambda work: loop.call_later(1, work)):
        with pytest.raises(AssertionError, match="call_soon_threadsafe"):
            await asyncio.to_thread(schedule, print)
    done = asyncio.Event()
    await asyncio.to_thread(loop.call_soon_threadsafe, done.set)
    await done.wait()
