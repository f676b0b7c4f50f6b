"""Promise: the real StemNS works through the control filter, and outlives whatever users do.

StemNS ends all resolution at the first reply that is not 250, so a look-up that was
cancelled must not cost it its reader.

STEMNS_PATH     a checkout of namecoin/StemNS
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from isoproxy.net.endpoint import Endpoint
from stemns_plugin.control_filter import ControlFilter, ControlFilterSettings
from stemns_plugin.controller import ControllerSettings
from tests.kit.servers import WebServer
from tests.kit.tornet import Node, TorNetwork
from tests.kit.waiting import until
from tests.network.stemns_plugin.test_control_filter import fetch, running
from tests.network.stemns_plugin.test_network import OPTIONS, children

pytestmark = pytest.mark.skipif(
    "STEMNS_PATH" not in os.environ, reason="STEMNS_PATH is not set: the real StemNS is needed"
)

WORKSTATION: Final = "127.0.0.1"
"""StemNS dials no other address, so its streams come from there."""
PLUGIN: Final = """
import sys, threading
turn = threading.Lock()
def say(line):
    with turn:
        sys.stdout.write(line + "\\n")
        sys.stdout.flush()
say("INIT 1 0")
def later(number):
    say(f"RESOLVED {number} 3 absent")
    with open(sys.argv[1], "a") as file:
        file.write("x")
for line in sys.stdin:
    words = line.split()
    if words[:1] != ["RESOLVE"]:
        continue
    if words[2].startswith("slow"):
        threading.Timer(1.0, later, words[1:2]).start()
    elif words[2].startswith("web"):
        say(f"RESOLVED {words[1]} 0 www.test")
    else:
        later(words[1])
"""
CONFIG: Final = """
import os, sys
def tor_control_port():
    return {port}
service_to_command = {{"bit": [sys.executable, {plugin!r}, {absent!r}]}}
def bootstrap_callback():
    open({ready!r}, "w").close()
def exit_callback():
    os._exit(0)
"""


@pytest.fixture(scope="module")
def node(tor_network: TorNetwork) -> Node:
    return tor_network.add_client(OPTIONS)


@contextlib.asynccontextmanager
async def stemns(directory: Path, port: int) -> AsyncIterator[tuple[Path, int]]:
    """StemNS, started as its users start it, once it has seen that Tor is up.

    What it prints, and its process ID; at the end it still runs.
    """
    (directory / "config").mkdir()
    shutil.copy(Path(os.environ["STEMNS_PATH"]) / "stemns.py", directory)
    (directory / "plugin.py").write_text(PLUGIN)
    ready = directory / "ready"
    (directory / "config" / "test.py").write_text(
        CONFIG.format(
            port=port,
            plugin=str(directory / "plugin.py"),
            absent=str(directory / "absent"),
            ready=str(ready),
        )
    )
    errors = directory / "errors"
    with errors.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(directory / "stemns.py"), stdout=file, stderr=file
        )
    try:
        await until(ready.exists, 20)
        yield errors, process.pid
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()


def free_place() -> Endpoint:
    with socket.socket() as probe:
        probe.bind((WORKSTATION, 0))
        return Endpoint.tcp(*probe.getsockname())


async def give_up(node: Node, name: str) -> None:
    """Ask for a name, and go away before there is an answer."""
    reader, writer = await asyncio.open_connection(*node.socks, local_addr=(WORKSTATION, 0))
    writer.write(b"\5\1\0")
    await reader.readexactly(2)
    host = name.encode()
    writer.write(b"\5\1\0\3" + bytes([len(host)]) + host + b"\0\x50")
    await asyncio.sleep(0.3)
    writer.close()


async def test_stemns_outlives_lookups_that_were_cancelled(
    tor_network: TorNetwork, node: Node, tmp_path: Path
) -> None:
    place = free_place()
    tor = ControllerSettings(Endpoint.unix(node.control_path), allow_internal=True)
    with WebServer(tor_network.server_ip) as web:
        async with (
            running(ControlFilter(ControlFilterSettings(tor, (place,)))),
            stemns(tmp_path, place.port) as (printed, _),
        ):
            assert await fetch(node, WORKSTATION, "web1.bit", web.port) == 0
            assert await fetch(node, WORKSTATION, "absent.bit", web.port) != 0
            await asyncio.gather(*(give_up(node, f"slow{n}.bit") for n in range(200)))
            # StemNS hears of each that it is absent, and closes what is long gone
            await until(lambda: (tmp_path / "absent").stat().st_size == 201)
            await fetch(node, WORKSTATION, "web1.bit", web.port)
            assert "Traceback" not in printed.read_text(), printed.read_text()
            users = [fetch(node, WORKSTATION, f"web{n}.bit", web.port) for n in range(60)]
            assert await asyncio.gather(*users) == [0] * 60


async def test_stemns_outlives_a_restart_of_tor_and_its_plugin(
    tor_network: TorNetwork, tmp_path: Path
) -> None:
    place = free_place()
    with WebServer(tor_network.server_ip) as web, tor_network.temporary_client(OPTIONS) as node:
        tor = ControllerSettings(Endpoint.unix(node.control_path), allow_internal=True)
        async with (
            running(ControlFilter(ControlFilterSettings(tor, (place,)))),
            stemns(tmp_path, place.port) as (printed, pid),
        ):
            assert await fetch(node, WORKSTATION, "web1.bit", web.port) == 0
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(node.restart)
            for attempt in itertools.count():
                if await fetch(node, WORKSTATION, "web2.bit", web.port) == 0:
                    break
                assert attempt < 30
                await asyncio.sleep(0.5)
            (plugin,) = children(pid)
            os.kill(plugin, signal.SIGKILL)
            await asyncio.gather(*(give_up(node, f"web{n}.bit") for n in range(20)))
            # its names are lost with it, and nothing else is
            assert await fetch(node, WORKSTATION, "www.test", web.port) == 0
            assert "Tor daemon exited" not in printed.read_text()
