"""The controller with the real tor on the private network.

What reaches an exit is seen by the exits' resolver and by a second control connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import queue
import random
import re
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from stemns_plugin.controller import Controller, ControllerSettings
from stemns_plugin.lookup_shares import MAX_LOOKUPS_OF_ONE
from stemns_plugin.suffix_router import SuffixRouter
from tests.kit import onion
from tests.kit.dial import dial
from tests.kit.servers import WebServer
from tests.kit.streams import StreamEvents, serving, stemns_command
from tests.kit.tornet import Control, Node, TorNetwork
from tests.kit.waiting import until
from tests.unit.stemns_plugin.test_suffix_router import Table

OPTIONS = """
__LeaveStreamsUnattached 1
HTTPTunnelPort {ip}:9080
DNSPort {ip}:9053
"""
HTTP_PORT, DNS_PORT = 9080, 9053


class _Slow(Table):
    """A table in which names under `slow.bit` wait for `release`."""

    def __init__(self, table: dict[str, str]) -> None:
        super().__init__(table)
        self.release = asyncio.Event()
        self.waiting: list[bytes] = []

    async def resolve(self, name: str, isolation: bytes) -> Target:
        if name.endswith("slow.bit"):
            self.waiting.append(isolation)
            await self.release.wait()
        if name.startswith("dead"):
            raise NamingError(kind=ErrorKind.NAME_BACKEND_DOWN)
        return await super().resolve(name, isolation)


@pytest.fixture(scope="module")
def node(tor_network: TorNetwork) -> Node:
    return tor_network.add_client(OPTIONS)


@pytest.fixture
def web(tor_network: TorNetwork) -> Iterator[WebServer]:
    with WebServer(tor_network.server_ip) as server:
        yield server


@pytest.fixture
def watch(node: Node) -> Iterator[Control]:
    control = node.control()
    control.check("SETEVENTS STREAM")
    yield control
    control.close()


def seen(control: Control) -> list[str]:
    """The event lines so far."""
    control.settle()
    lines = []
    with contextlib.suppress(queue.Empty):
        while (line := control.events.get_nowait()) is not None:
            lines.append(line)
    return lines


@pytest.fixture
def raw(node: Node) -> Iterator[StreamEvents]:
    follower = StreamEvents(node)
    yield follower
    follower.close()


def sent_to_exits(lines: list[str]) -> list[str]:
    """Host names that streams carried when they were attached."""
    found = [re.match(r"650 STREAM \d+ SENT\w+ \d+ (\S+):\d+ ", line) for line in lines]
    return [match[1].lower().rstrip(".") for match in found if match]


@contextlib.asynccontextmanager
async def controlled(node: Node, table: Table) -> AsyncIterator[Controller]:
    router = SuffixRouter({"bit": table, "bit.onion": table})
    settings = ControllerSettings(Endpoint.unix(node.control_path), allow_internal=True)
    controller = Controller(settings, router.is_ours, router.find)
    task = asyncio.create_task(controller.run())
    await until(lambda: controller.is_ready or task.done())
    if task.done():
        task.result()
    try:
        yield controller
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode()


def through(node: Node, way: str) -> list[str]:
    if way == "socks":
        return ["--socks5-hostname", "{}:{}".format(*node.socks)]
    return ["--proxytunnel", "--proxy", f"http://{node.socks[0]}:{HTTP_PORT}"]


async def fetch(node: Node, way: str, host: str, port: int) -> tuple[int, str]:
    """curl's exit code and what it got."""
    url = f"http://{host}:{port}/"
    return await run("curl", "-sS", "-m", "30", *through(node, way), url)


@pytest.mark.parametrize("way", ["socks", "http"])
@pytest.mark.parametrize(
    "name", ["web.bit", "WEB.Bit", "web.bit.", "alias.bit", "ip.bit", "www.test"]
)
async def test_curl_reaches_names(
    tor_network: TorNetwork, node: Node, web: WebServer, way: str, name: str
) -> None:
    table = Table({"web.bit": "www.test", "alias.bit": "web.bit", "ip.bit": tor_network.server_ip})
    async with controlled(node, table):
        code, page = await fetch(node, way, name, web.port)
    assert (code, page[:5]) == (0, "exit=")
    assert len(table.asked) == {"alias.bit": 2, "www.test": 0}.get(name, 1)


async def test_curl_reaches_an_onion_service_by_its_name(
    tor_network: TorNetwork, node: Node, web: WebServer
) -> None:
    with contextlib.ExitStack() as stack:
        publishing = onion.publish(tor_network.client, {80: web.address})
        service = await asyncio.to_thread(stack.enter_context, publishing)
        async with controlled(node, Table({"hidden.bit": service.host})):
            code, page = await fetch(node, "socks", "hidden.bit", 80)
    assert (code, page[:5]) == (0, "exit=")


async def test_where_tor_automaps_an_onion_service_has_an_address_that_leads_to_it(
    tor_network: TorNetwork, web: WebServer
) -> None:
    options = OPTIONS + "AutomapHostsOnResolve 1\nVirtualAddrNetworkIPv4 172.30.0.0/16\n"
    node = await asyncio.to_thread(tor_network.add_client, options)
    with contextlib.ExitStack() as stack:
        publishing = onion.publish(tor_network.client, {80: web.address})
        service = await asyncio.to_thread(stack.enter_context, publishing)
        async with controlled(node, Table({"hidden.bit": service.host})):
            assert (await run("tor-resolve", "hidden.bit", "{}:{}".format(*node.socks)))[0] == 0
            address = re.search(r"172\.30\.[0-9.]+", str(await ask_dns(node, "hidden.bit")))
            assert address is not None
            code, page = await fetch(node, "socks", address[0], 80)
            assert (code, page[:5]) == (0, "exit=")


async def test_tor_resolve_and_dns_get_addresses_and_nothing_else(
    tor_network: TorNetwork, node: Node
) -> None:
    table = Table({"ip.bit": "192.0.2.7", "hidden.bit": "a" * 56 + ".onion"})
    socks = "{}:{}".format(*node.socks)
    async with controlled(node, table):
        assert await run("tor-resolve", "ip.bit", socks) == (0, "192.0.2.7\n")
        assert (await run("tor-resolve", "hidden.bit", socks))[0] != 0
        assert (await run("tor-resolve", "unknown.bit", socks))[0] != 0
        code, text = await run("tor-resolve", "www.test", socks)
        assert (code, text.strip()) == (0, tor_network.server_ip)
        answer = await ask_dns(node, "ip.bit")
        assert "192.0.2.7" in str(answer)
        assert (await ask_dns(node, "unknown.bit")).rcode() == dns.rcode.SERVFAIL
        assert (await run("tor-resolve", "-x", "10.1.2.3", socks))[0] != 0
        assert (await ask_dns(node, "3.2.1.10.in-addr.arpa", "PTR")).rcode() != dns.rcode.NOERROR
    assert not any("10.1.2.3" in name or "3.2.1.10" in name for name in tor_network.dns.names())


async def ask_dns(node: Node, name: str, kind: str = "A") -> dns.message.Message:
    return dns.message.from_wire(
        await ask_dns_raw(node, dns.message.make_query(name, kind).to_wire()),
        ignore_trailing=True,
    )


async def ask_dns_raw(node: Node, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((node.socks[0], DNS_PORT))
        await loop.sock_sendall(client, query)
        return await asyncio.wait_for(loop.sock_recv(client, 4096), 30)


SPELLINGS = ["x{}.bit", "X{}.BIT", "x{}.bit.", "www.x{}.BiT.", "x{}.bit.onion", "dead{}.bit"]


@pytest.mark.parametrize("way", ["socks", "http"])
async def test_odd_spellings_unknown_names_and_dead_backends_never_reach_an_exit(
    tor_network: TorNetwork, node: Node, watch: Control, way: str
) -> None:
    names = [spelling.format(way) for spelling in SPELLINGS]
    async with controlled(node, Table()) as controller:
        router = SuffixRouter({"bit": _Slow({})}, timeout=1.5)
        controller._find = router.find
        results = await asyncio.gather(*(fetch(node, way, name, 80) for name in names))
    assert all(code != 0 for code, _ in results)
    lines = await asyncio.to_thread(seen, watch)
    assert not [host for host in sent_to_exits(lines) if "bit" in host.split(".")]
    assert not [name for name in tor_network.dns.names() if "bit" in name.lower().split(".")]


async def test_without_the_controller_nothing_passes(
    tor_network: TorNetwork, node: Node, watch: Control
) -> None:
    process = asyncio.create_task(
        run("curl", "-sS", "-m", "2", *through(node, "socks"), "http://alone.bit/")
    )
    code, _ = await process
    assert code == 28  # curl's own time ran out
    assert sent_to_exits(await asyncio.to_thread(seen, watch)) == []


async def test_streams_that_are_not_ours_are_attached_and_none_is_lost(
    node: Node, web: WebServer, raw: StreamEvents, tmp_path: Path
) -> None:
    """One after the other, and many at once; the program is told of each by Tor alone."""
    connect = functools.partial(dial, node.socks, "www.test", web.port)
    async with program(tmp_path, node):
        start = len(raw.lines)
        for _ in range(10):
            (await asyncio.to_thread(connect)).close()
        for opened in await asyncio.gather(*(asyncio.to_thread(connect) for _ in range(50))):
            opened.close()
        await until(lambda: len(raw.moments(start, "SENTCONNECT")) >= 60)
    waited = raw.moments(start, "CONTROLLER_WAIT")
    sent = raw.moments(start, "SENTCONNECT")
    assert len(sent) == 60
    assert sent.keys() == waited.keys() == raw.moments(start, "SUCCEEDED").keys()
    assert not raw.moments(start, "FAILED")


async def test_a_slow_name_delays_no_other_stream(
    tor_network: TorNetwork, node: Node, web: WebServer
) -> None:
    table = _Slow({"slow.bit": "www.test", "web.bit": "www.test"})
    async with controlled(node, table):
        slow = asyncio.create_task(fetch(node, "socks", "slow.bit", web.port))
        await asyncio.sleep(0.3)
        for name in ("web.bit", "www.test"):
            assert (await fetch(node, "socks", name, web.port))[0] == 0
        assert not slow.done()
        table.release.set()
        assert (await slow)[0] == 0


async def test_500_streams_at_once_wait_and_none_is_refused(
    tor_network: TorNetwork, node: Node, web: WebServer
) -> None:
    """More than a client's share of look-ups, which all of them hold until the name is known."""
    table = _Slow({"slow.bit": "www.test"})

    async def stream() -> int:
        reader, writer = await asyncio.open_connection(*node.socks)
        try:
            writer.write(b"\5\1\0\5\1\0\3\x08slow.bit" + web.port.to_bytes(2))
            await reader.readexactly(2)
            return (await reader.readexactly(10))[1]
        finally:
            writer.close()

    async with controlled(node, table):
        streams = [asyncio.create_task(stream()) for _ in range(500)]
        await until(lambda: len(table.waiting) >= MAX_LOOKUPS_OF_ONE, 30)
        table.release.set()
        async with asyncio.timeout(100):
            assert await asyncio.gather(*streams) == [0] * 500


async def test_users_have_ids_of_their_own_and_newnym_changes_them(
    tor_network: TorNetwork, node: Node, web: WebServer
) -> None:
    table = Table({"web.bit": "www.test"})
    socks = "{}:{}".format(*node.socks)
    async with controlled(node, table):

        async def identity(user: str) -> bytes:
            url = f"http://web.bit:{web.port}/"
            code, _ = await run(
                "curl", "-sS", "-m", "30", "--proxy", f"socks5h://{user}:x@{socks}", url
            )
            assert code == 0
            return table.asked[-1][1]

        one, again, two = [await identity(user) for user in ("one", "one", "two")]
        assert one == again != two
        await asyncio.to_thread(node.ctl.check, "SIGNAL NEWNYM")
        assert await identity("one") not in {one, two}


# -- names that forge lines


def forgeries(number: int, plain: str) -> Iterator[bytes]:
    """Names of 1-255 bytes that try to be more than a name, about the stream `number`."""
    tail = "CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=0 SESSION_GROUP=-6 ISO_FIELDS=SESSION_GROUP,NYM_EPOCH"
    lines = [
        f"650 STREAM {number} CONTROLLER_WAIT 0 {plain}:80 {tail}",
        f"650 STREAM {number} NEW 0 {plain}:80 {tail}",
        f"650 STREAM {number} CLOSED 0 slow.bit:80 REASON=DONE {tail}",
        f"650 STREAM {number} CONTROLLER_WAIT 0 x",
        f"{number} NEW 0 {plain}:80",
        "250 OK",
        "250+stream-status=",
        "552 Unknown stream",
        ".",
    ]
    for line in lines:
        for end in ("\r\n", "\n"):
            yield f"a{end}{line}{end}b".encode()[:255]
            yield f"a:1 {tail}{end}{line}".encode()[:255]
    yield from (b"a b", b"a\0b.bit", b'"', b"'", b"\xff\xfe.bit", b"a\x0b.bit", b"d/x.bit")
    yield from (b"a" * length for length in (249, 250, 253, 255))
    yield from ((b"b" * 60 + b".") * 4 + b"c" * n for n in (2, 8, 11))


def as_labels(name: bytes) -> bytes:
    """A DNS query whose labels are `name`, cut every 50 bytes."""
    labels = [name[at : at + 50] for at in range(0, min(len(name), 200), 50)]
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!HHHHHH", random.randrange(65536), 256, 1, 0, 0, 0) + question + b"\0\1\0\1"


def attack(node: Node, number: int) -> None:
    """Every forgery through every kind of port of the client's."""
    with contextlib.ExitStack() as stack:
        for name in forgeries(number, "innocent.test"):
            for command in (1, 0xF0):
                client = stack.enter_context(socket.create_connection(node.socks, timeout=5))
                with contextlib.suppress(OSError):
                    client.sendall(b"\x05\x01\x00")
                    client.recv(2)
                    head = struct.pack("!BBBBB", 5, command, 0, 3, len(name))
                    client.sendall(head + name + b"\0\x50")
            datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            datagram.sendto(as_labels(name), (node.socks[0], DNS_PORT))
            tunnel = stack.enter_context(
                socket.create_connection((node.socks[0], HTTP_PORT), timeout=5)
            )
            with contextlib.suppress(OSError):
                tunnel.sendall(b"CONNECT " + name + b":80 HTTP/1.0\r\n\r\n")
        time.sleep(0.3)


async def test_names_that_forge_lines_change_nothing_for_other_streams(
    tor_network: TorNetwork, node: Node, web: WebServer, raw: StreamEvents
) -> None:
    table = _Slow({"slow.bit": "www.test", "web.bit": "www.test"})
    async with controlled(node, table) as controller:
        victim = asyncio.create_task(fetch(node, "socks", "slow.bit", web.port))
        await until(lambda: controller._attacher is not None and controller._attacher._lookups)
        assert controller._attacher is not None
        (number,) = controller._attacher._lookups
        await asyncio.to_thread(attack, node, number)
        assert not victim.done()
        for name in ("web.bit", "www.test"):
            assert (await fetch(node, "socks", name, web.port))[0] == 0
        await asyncio.to_thread(attack, node, number + 3)  # about streams yet to come
        pages = [await fetch(node, "socks", "web.bit", web.port) for _ in range(10)]
        assert [code for code, _ in pages] == [0] * 10
        table.release.set()
        code, page = await victim
        assert (code, page[:5]) == (0, "exit=")
        assert controller.is_ready
    hosts = sent_to_exits([line for _, line in raw.lines])
    assert "www.test" in hosts
    assert not [host for host in hosts if host.endswith(".bit")]
    assert not [name for name in tor_network.dns.names() if name.lower().endswith(".bit")]


# -- the programs


def program(
    tmp_path: Path, node: Node, hosts: str = ""
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """`stemns` as a process."""
    return serving(stemns_command(tmp_path, node, hosts))


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


async def test_the_program_with_a_plugin_and_a_restart_of_tor(
    tor_network: TorNetwork, web: WebServer, tmp_path: Path
) -> None:
    node = tor_network.add_client(OPTIONS)
    hosts = f"web.bit www.test\nmy.pet.onion {tor_network.server_ip}\n"
    async with program(tmp_path, node, hosts) as process:
        for name in ("web.bit", "my.pet.onion"):
            assert (await fetch(node, "socks", name, web.port))[0] == 0
        assert len(children(process.pid)) == 1  # one plugin for both suffixes
        assert (await fetch(node, "socks", "other.bit", web.port))[0] != 0
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.restart)
        for attempt in itertools.count():
            code, _ = await fetch(node, "socks", "web.bit", web.port)
            if code == 0:
                break
            assert attempt < 10
            await asyncio.sleep(1)
    assert process.returncode == 0


async def test_the_program_refuses_a_tor_that_attaches_by_itself(
    tor_network: TorNetwork, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text(
        f"[stemns]\ncontrol = 'unix:{tor_network.client.control_path}'\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stemns_plugin", "-c", str(tmp_path / "s.toml"),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"__LeaveStreamsUnattached 1" in errors
