"""Promise: when Tor dies, clients hear of it in time, isoproxy stays, and all works again
once Tor is back, without a restart of isoproxy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.kit.dial import Refused, dial, receive_exactly
from tests.kit.isoproxy_process import Isoproxy, children, managed, system
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork
from tests.network.programs import curl

DIAL_TIMEOUT_S: Final = 2.0
DEADLINE_S: Final = DIAL_TIMEOUT_S + 3
"""Deadlines are looked through once a second; the rest is a busy machine's."""
SETTINGS: Final = ["limits.workers=1", f"limits.dial_timeout_s={DIAL_TIMEOUT_S}"]


@pytest.fixture
def echo(tor_network: TorNetwork) -> Iterator[EchoServer]:
    with EchoServer(tor_network.server_ip) as server:
        yield server


def opened(proxy: Isoproxy, echo: EchoServer, user: bytes) -> socket.socket:
    while True:
        try:
            stream = dial(proxy.address, "echo.test", echo.port, user=user, timeout=60)
            break
        except Refused:
            # A tor that has just started refuses some; the test's timeout is the deadline.
            time.sleep(0.5)
    stream.sendall(b"hello")
    assert receive_exactly(stream, 5) == b"hello"
    return stream


def refusal(proxy: Isoproxy, echo: EchoServer, user: bytes) -> int | None:
    """The reply to a stream that cannot open, which must come in time."""
    began = time.monotonic()
    with pytest.raises(Refused) as told:
        dial(proxy.address, "echo.test", echo.port, user=user, timeout=DEADLINE_S).close()
    assert time.monotonic() - began < DEADLINE_S
    return told.value.reply


def outage(proxy: Isoproxy, echo: EchoServer, kill: Callable[[], None], tor_pid: int) -> None:
    """Tor freezes, is then killed, during traffic; nobody is left without an answer."""
    with contextlib.ExitStack() as held:
        open_streams = [
            held.enter_context(opened(proxy, echo, b"user %d" % (n % 3))) for n in range(6)
        ]
        # frozen: streams that are being opened run into the deadline of the dial, reply 6
        os.kill(tor_pid, signal.SIGSTOP)
        with ThreadPoolExecutor(8) as pool:
            users = [b"user %d" % n for n in range(8)]
            replies = list(pool.map(lambda user: refusal(proxy, echo, user), users))
        assert set(replies) == {6}
        # killed while others are being opened
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(refusal, proxy, echo, b"user %d" % n) for n in range(8)]
            proxy.wait_for("dials", lambda: _opening(proxy) >= 8)
            kill()
            assert {job.result() for job in jobs} == {1}
        # open streams end, as they do at Tor's own port: the kernel closes a dead
        # process's sockets, and tells its peers no more than that
        for stream in open_streams:
            stream.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionResetError):
                assert stream.recv(100) == b""


def _opening(proxy: Isoproxy) -> int:
    return sum(flow["state"] == "opening" for flow in proxy.status()["flows"])


def works_again(proxy: Isoproxy, echo: EchoServer, pid: int) -> None:
    proxy.wait_ready()
    for number in range(6):
        opened(proxy, echo, b"user %d" % number).close()
    assert proxy.pid == pid
    assert proxy.status()["counters"]["defects"] == 0
    assert not _opening(proxy)


def test_a_tor_that_runs_elsewhere(
    tor_network: TorNetwork, echo: EchoServer, tmp_path: Path
) -> None:
    with (
        tor_network.temporary_client() as client,
        Isoproxy(tmp_path, [*system(client), *SETTINGS]) as proxy,
    ):
        outage(proxy, echo, client.kill, client.pid)
        _refused_at_once(proxy, echo)
        client.restart()
        works_again(proxy, echo, proxy.pid)


def _refused_at_once(proxy: Isoproxy, echo: EchoServer) -> None:
    """With Tor away every protocol gives its clear error, and status says what is wrong."""
    began = time.monotonic()
    assert refusal(proxy, echo, b"new") == 1
    assert refusal(proxy, echo, b"user 1") == 1
    url = f"http://echo.test:{echo.port}/"
    with pytest.raises(subprocess.CalledProcessError) as told:
        curl("-p", "--proxy", f"http://{proxy.host_and_port}", url)
    assert "response 503" in told.value.stderr
    with pytest.raises(subprocess.CalledProcessError):
        curl("--proxy", f"socks4a://u@{proxy.host_and_port}", url)
    assert time.monotonic() - began < DEADLINE_S
    proxy.wait_for("status", lambda: not proxy.status()["tor"]["answers"], timeout=3)
    assert "DOES NOT ANSWER" in proxy.command("status").stdout


def test_a_tor_of_our_own(tor_network: TorNetwork, echo: EchoServer, tmp_path: Path) -> None:
    with Isoproxy(tmp_path, [*managed(tor_network), *SETTINGS]) as proxy:
        proxy.wait_ready()
        for _ in range(2):
            tor = _tor_of(proxy)
            outage(proxy, echo, partial(os.kill, tor, signal.SIGKILL), tor)
            proxy.wait_for("tor's end", partial(_is_gone, tor))
            works_again(proxy, echo, proxy.pid)
            assert _tor_of(proxy) != tor
        tor = _tor_of(proxy)
    assert _is_gone(tor), "tor outlived isoproxy"


def test_a_tor_of_our_own_ends_with_us(tor_network: TorNetwork, tmp_path: Path) -> None:
    """Even when isoproxy has no chance to stop it."""
    with contextlib.suppress(AssertionError), Isoproxy(tmp_path, managed(tor_network)) as proxy:
        proxy.wait_ready()
        tor = _tor_of(proxy)
        os.kill(proxy.pid, signal.SIGKILL)
        while Path(f"/proc/{tor}/exe").exists():  # the test's timeout is the deadline
            time.sleep(0.05)


def _tor_of(proxy: Isoproxy) -> int:
    found = [pid for pid in children(proxy.pid) if "tor" in _name(pid)]
    assert len(found) == 1, found
    return found[0]


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
