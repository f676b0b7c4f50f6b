"""A managed tor with the real program, off the network."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.net.backoff import Backoff
from isoproxy.tor.managed.process import ManagedTor
from isoproxy.tor.managed.program import Stage
from isoproxy.tor.managed.torrc import SOCKS_FLAGS
from tests.kit.waiting import until

OFFLINE = ["DisableNetwork 1"]


async def test_a_missing_tor_says_what_to_install(tmp_path: Path) -> None:
    tor = ManagedTor(tmp_path, program="/nonexistent/tor")
    with pytest.raises(ConfigError, match="apt install tor"):
        await tor.start()


async def test_a_program_that_is_not_tor_is_refused(tmp_path: Path) -> None:
    tor = ManagedTor(tmp_path, program="/bin/true")
    with pytest.raises(ConfigError, match="version"):
        await tor.start()


async def test_the_real_tor_starts_serves_and_stops(short_path: Path) -> None:
    tor = ManagedTor(short_path, extra_torrc=OFFLINE)
    newnyms: list[int] = []
    tor.control.on_newnym(lambda: newnyms.append(1))
    await tor.start()
    try:
        assert tor.state.stage is Stage.BOOTSTRAPPING
        assert tor.control.version is not None
        assert tor.version is not None
        assert tor.control.version.startswith(".".join(map(str, tor.version)))
        assert await tor.control.getinfo("config-file") == str(short_path / "torrc").encode()
        listener = f'SocksPort=unix:"{tor.socks.path}" {SOCKS_FLAGS}'.encode()
        assert (await tor.control.message("GETCONF SocksPort")).lines == (listener,)
        assert (await tor.control.message("GETCONF ConfluxEnabled")).lines == (b"ConfluxEnabled=0",)
        assert await tor.control.refresh_circuits() == ()
        await tor.control.signal_newnym()
        await until(lambda: newnyms)
        assert tor.pid is not None
        pid = tor.pid
    finally:
        await tor.stop()
    assert not is_running(pid)
    assert tor.pid is None


async def test_the_real_tor_is_started_again_after_a_kill(short_path: Path) -> None:
    tor = ManagedTor(short_path, extra_torrc=OFFLINE, backoff=Backoff(0.1, 0.2))
    await tor.start()
    try:
        first = tor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: tor.pid not in (None, first) and tor.control.connects == 2)
        await until(lambda: tor.state.stage is Stage.BOOTSTRAPPING)
        assert await tor.control.getinfo("process/pid") == str(tor.pid).encode()
    finally:
        await tor.stop()


async def test_what_the_real_tor_refuses_is_a_configuration_error(short_path: Path) -> None:
    tor = ManagedTor(short_path, extra_torrc=["NoSuchOption 1"])
    with pytest.raises(ConfigError, match="Unknown option 'NoSuchOption'"):
        await tor.start()


PARENT = """
import asyncio, sys
from pathlib import Path
from isoproxy.tor.managed.process import ManagedTor

async def main():
    tor = ManagedTor(Path(sys.argv[1]), extra_torrc=["DisableNetwork 1"])
    await tor.start()
    print(tor.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_real_tor_dies_when_we_are_killed(short_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(short_path)), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_running(pid), 5)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie (an orphan may wait for its reaper)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(") ")[2][0] != "Z"


async def test_the_log_of_the_real_tor_says_which_transport_cannot_start(short_path: Path) -> None:
    lines = [
        "UseBridges 1",
        "ClientTransportPlugin obfs4 exec /nonexistent/obfs4proxy",
        "Bridge obfs4 192.0.2.7:4711 0123456789ABCDEF0123456789ABCDEF01234567 cert=secret",
    ]
    tor = ManagedTor(short_path, extra_torrc=lines, backoff=Backoff(0.1, 0.2))
    await tor.start()
    try:
        await until(lambda: any("/nonexistent/obfs4proxy" in line for line in tor.log.lines))
        assert tor.log.complaint is not None
        shown = " ".join(tor.log.lines)
        for secret in ("192.0.2.7", "0123456789ABCDEF", "cert="):
            assert secret not in shown
    finally:
        await tor.stop()
