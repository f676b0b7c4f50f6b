"""The control filter before the real tor: a workstation with our controller, and a hostile one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from isoproxy.net.endpoint import Endpoint
from stemns_plugin.control_filter import ControlFilter, ControlFilterSettings
from stemns_plugin.controller import Controller, ControllerSettings
from stemns_plugin.suffix_router import SuffixRouter
from tests.kit.servers import WebServer
from tests.kit.tornet import Node, TorNetwork
from tests.kit.waiting import until
from tests.network.stemns_plugin.test_network import OPTIONS, _Slow, run
from tests.unit.stemns_plugin.test_control_filter import _Workstation

HONEST, HOSTILE = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def node(tor_network: TorNetwork) -> Node:
    return tor_network.add_client(OPTIONS)


@contextlib.asynccontextmanager
async def running(what: ControlFilter | Controller) -> AsyncIterator[None]:
    task = asyncio.create_task(what.run())
    await until(lambda: what.is_ready or task.done())
    if task.done():
        task.result()
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def fetch(node: Node, source: str, host: str, port: int) -> int:
    """curl's exit code, from a workstation's address."""
    socks = "{}:{}".format(*node.socks)
    code, _ = await run(
        "curl", "-sS", "-m", "30", "--interface", source,
        "--socks5-hostname", socks, f"http://{host}:{port}/",
    )  # fmt: skip
    return code


async def test_one_workstation_resolves_its_names_and_another_can_do_nothing_about_it(
    tor_network: TorNetwork, node: Node
) -> None:
    with socket.socket() as probe:
        probe.bind((node.socks[0], 0))
        place = Endpoint.tcp(*probe.getsockname())
    tor = ControllerSettings(Endpoint.unix(node.control_path), allow_internal=True)
    table = _Slow({"web.bit": "www.test", "slow.bit": "www.test"})
    router = SuffixRouter({"bit": table})
    controller = Controller(
        ControllerSettings(place, allow_internal=True), router.is_ours, router.find
    )
    with WebServer(tor_network.server_ip) as web:
        async with (
            running(ControlFilter(ControlFilterSettings(tor, (place,)))),
            running(controller),
        ):
            reader, writer = await asyncio.open_connection(
                place.host, place.port, local_addr=(HOSTILE, 0)
            )
            hostile = _Workstation(reader, writer)
            assert await hostile.ask(b"SETEVENTS STREAM") == b"250 OK"
            assert await fetch(node, HONEST, "web.bit", web.port) == 0
            assert await fetch(node, HOSTILE, "www.test", web.port) == 0

            victim = asyncio.create_task(fetch(node, HONEST, "slow.bit", web.port))
            await until(lambda: controller._attacher is not None and controller._attacher._lookups)
            assert controller._attacher is not None
            (number,) = controller._attacher._lookups
            for line in (b"REDIRECTSTREAM %d evil.test", b"ATTACHSTREAM %d 0", b"CLOSESTREAM %d 1"):
                assert (await hostile.ask(line % number)).startswith(b"552 ")
            assert (await hostile.ask(b"EXTENDCIRCUIT 0")).startswith(b"510 ")
            assert not victim.done()
            table.release.set()
            assert await victim == 0

            mine = asyncio.create_task(fetch(node, HOSTILE, "mine.bit", web.port))
            await until(lambda: len(hostile.events()) == 2)
            assert {event.host for event in hostile.events()} == {b"mine.bit"}
            assert await hostile.ask(b"CLOSESTREAM %d 2" % hostile.events()[0].id) == b"250 OK"
            assert await mine != 0
            await hostile.close()
    names = [name for name in tor_network.dns.names() if name.lower().endswith(".bit")]
    assert names == []
