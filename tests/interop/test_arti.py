"""The same four suites over C tor and Arti, each of our own and one that runs elsewhere.

The witness is the exit: Arti shows no circuits.  Two tuples that shared a circuit would
leave at one exit in every epoch; the network has more exits than tuples, and a pair that
does so by chance in all epochs is one in 24 ** 4.

What differs: Arti answers a closed port and an absent name alike, with reply 01, hangs up on
names that C tor takes, and cannot be asked for circuits, onion services of ours, or to
follow New Identity.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.interop.nodes import CACHE
from tests.kit.dial import Refused, dial
from tests.kit.isoproxy_process import Isoproxy, managed, system
from tests.kit.onion import publish
from tests.kit.ports import free_port
from tests.kit.servers import WebServer, closed_port
from tests.kit.tornet import TorNetwork
from tests.kit.tornet.arti import arti_lines
from tests.network.bitcoin_ends import V1Client, v2_node
from tests.network.name_world import NameWorld, name_world

ARTI_VERSION: Final = "2.7.0"
pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

FEATURES: Final = (
    "tokio,native-tls,dns-proxy,compression,onion-service-client,vanguards,flowctl-cc,rpc"
)
EXITS: Final = 23
TUPLES: Final = 20
STREAMS: Final = 10
EPOCHS: Final = 4
PUBLIC: Final = "93.184.216.34"
"""Nothing is sent there: it is what a name stands for, and no private address."""

Settings = Callable[[Path], list[str]]


def arti_program() -> str:
    """The path of an Arti with RPC: ARTI_PATH, or one built from crates.io."""
    if (path := os.environ.get("ARTI_PATH")) is not None:
        return path
    program = CACHE / "arti" / "bin" / "arti"
    if not program.exists():
        if shutil.which("cargo") is None:
            pytest.skip("cargo is not installed, so Arti cannot be built; ARTI_PATH names one")
        built = subprocess.run(
            [
                *("cargo", "install", "arti", "--version", ARTI_VERSION, "--locked", "--debug"),
                *("--root", str(CACHE / "arti"), "--no-default-features", "--features", FEATURES),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            pytest.skip("Arti could not be built: " + built.stderr.strip()[-200:])
    return str(program)


@pytest.fixture(scope="module")
def net() -> Iterator[TorNetwork]:
    hosts = {"public.test": [PUBLIC]}
    with TorNetwork(exits=EXITS, timeout=240, hosts=hosts) as network:
        yield network


@pytest.fixture(scope="module")
def web(net: TorNetwork) -> Iterator[WebServer]:
    with WebServer(net.server_ip, net.exit_of) as server:
        yield server


@contextlib.contextmanager
def running_arti(net: TorNetwork, directory: Path) -> Iterator[Path]:
    """An Arti that is not ours; its RPC socket."""
    rpc, connect = directory / "rpc", directory / "connect.toml"
    connect.write_text(f'[connect]\nsocket = "unix:{rpc}"\nauth = "none"\n')
    lines = [
        f'proxy.socks_listen = "127.0.0.1:{free_port()}"',
        f'storage.cache_dir = "{directory}/cache"',
        f'storage.state_dir = "{directory}/state"',
        "rpc.enable = true",
        f'rpc.listen.test.file = "{connect}"',
        *arti_lines(net),
    ]
    (directory / "arti.toml").write_text("\n".join(lines))
    with (directory / "log").open("wb") as log:
        command = [arti_program(), "proxy", "-c", str(directory / "arti.toml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not rpc.exists():
            assert time.monotonic() < deadline, (directory / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield rpc
    finally:
        process.terminate()
        process.wait(30)


FORMS: Final = ("c-tor-system", "c-tor-managed", "arti-managed", "arti-running")


@pytest.fixture(scope="module", params=FORMS)
def tor(request: pytest.FixtureRequest, net: TorNetwork, short_module: Path) -> Iterator[list[str]]:
    """Settings for one form of Tor."""
    if request.param == "c-tor-system":
        yield system(net.client)
    elif request.param == "c-tor-managed":
        yield managed(net)
    elif request.param == "arti-managed":
        yield [
            "tor.mode=arti",
            f"tor.arti_binary={arti_program()}",
            "tor.extra_arti=" + json.dumps(arti_lines(net)),
        ]
    else:
        with running_arti(net, short_module) as rpc:
            yield ["tor.mode=arti", f"tor.arti_rpc=unix:{rpc}"]


@pytest.fixture(scope="module")
def short_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short directory, since sockets' paths are."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="arti") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def world(
    net: TorNetwork, web: WebServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NameWorld]:
    values = {"d/ip-web": {"ip": net.server_ip}}
    with name_world(net, tmp_path_factory.mktemp("electrumx"), values) as servers:
        yield servers


@pytest.fixture(scope="module")
def proxy(
    tor: list[str], world: NameWorld, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Isoproxy]:
    directory = tmp_path_factory.mktemp("form")
    names = [*world.settings(pool_size=9), "names.allow_private_addresses=true"]
    settings = [*tor, *names, "bitcoin.v1_fallback=never"]
    with Isoproxy(directory, settings, develop=False) as running:
        running.wait_ready()
        yield running


def exit_of_stream(proxy: Isoproxy, web: WebServer, user: bytes, host: str = "www.test") -> str:
    """The exit that a new stream of `user` leaves at, as the server sees it."""
    with dial(proxy.address, host, web.port, user=user) as sock:
        connection = http.client.HTTPConnection(host, web.port)
        connection.sock = sock
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return str(answer.headers["X-Exit"])


def test_two_hundred_streams_of_twenty_tuples(proxy: Isoproxy, web: WebServer) -> None:
    users = [f"user{number}".encode() for number in range(TUPLES)]
    met: set[tuple[bytes, bytes]] = set(itertools.combinations(users, 2))
    for _ in range(EPOCHS):
        with ThreadPoolExecutor(TUPLES) as pool:
            exits = list(pool.map(lambda user: exit_of_stream(proxy, web, user), users * STREAMS))
        assert "none" not in exits
        of = {user: set(exits[number::TUPLES]) for number, user in enumerate(users)}
        met &= {pair for pair in met if of[pair[0]] & of[pair[1]]}
        assert proxy.command("newnym").returncode == 0
    assert met == set()


def test_names_are_found_and_reached(proxy: Isoproxy, web: WebServer) -> None:
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(Refused):
            assert exit_of_stream(proxy, web, b"names", "ip-web.bit") != "none"
            return
        assert time.monotonic() < deadline, proxy.text()[-2000:]
        time.sleep(1)


def test_an_onion_service_is_visited(proxy: Isoproxy, web: WebServer, net: TorNetwork) -> None:
    with publish(net.exits[1], {web.port: web.address}) as onion:
        exit_of_stream(proxy, web, b"visitor", onion.host)
    assert any(exit == net.exits[1].name for exit, _, _ in web.requests)


def test_a_v1_client_meets_its_peer_in_v2(proxy: Isoproxy, net: TorNetwork) -> None:
    with v2_node(net.server_ip) as (service, port):
        client = V1Client(dial(proxy.address, "peer.test", port, user=b"wallet", timeout=60))
        with client.sock:
            client.hello()
            client.ping()
            (flow,) = proxy.status()["bitcoin"]["flows"]
            assert flow["transport"] == "v2"
            assert {flow["session_id"]} == {one.session_id for one in service.registry.flows}


def test_what_cannot_be_reached_is_refused(
    proxy: Isoproxy, net: TorNetwork, tor: list[str]
) -> None:
    with closed_port(net.server_ip) as port, pytest.raises(Refused) as closed:
        dial(proxy.address, "www.test", port, user=b"closed")
    with pytest.raises(Refused) as absent:
        dial(proxy.address, "absent.invalid-name", 80, user=b"absent")
    replies = (closed.value.reply, absent.value.reply)
    assert replies == ((1, 1) if "tor.mode=arti" in tor else (1, 4))


def test_what_tor_would_not_take_is_refused_by_us(proxy: Isoproxy, tor: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        dial(proxy.address, "www.test", 0, user=b"syntax")
    assert caught.value.reply == 1
    if "tor.mode=arti" not in tor:
        return
    asked, before = ("a_b.test", "-a.test", "a-.test", "x" * 64 + ".test"), refusals(proxy)
    for host in asked:
        with pytest.raises(Refused) as caught:
            dial(proxy.address, host, 80, user=b"syntax")
        assert caught.value.reply == 1
    assert refusals(proxy) == before + len(asked)


def refusals(proxy: Isoproxy) -> int:
    """How many requests were refused over what they ask for, before any Tor heard of them."""
    counted = r'^isoproxy_requests_total\{.*command="connect",kind="name_syntax"\} (\d+)$'
    return sum(map(int, re.findall(counted, proxy.metrics(), re.MULTILINE)))


def test_addresses_and_names_are_asked_for(
    proxy: Isoproxy, net: TorNetwork, world: NameWorld
) -> None:
    """By the real tor-resolve: RESOLVE and RESOLVE_PTR."""

    def resolved(*words: str) -> str | None:
        outcome = subprocess.run(
            ["tor-resolve", *words, proxy.host_and_port], capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        return None if outcome.returncode else outcome.stdout.strip()

    assert resolved("public.test") == PUBLIC
    assert resolved("-x", PUBLIC) == "public.test"
    assert resolved("ip-web.bit") == net.server_ip
    assert resolved("absent.invalid-name") is None
    assert resolved("-x", "8.8.8.8") is None


def test_the_doctor_says_what_it_saw_and_no_more(
    proxy: Isoproxy, web: WebServer, tor: list[str]
) -> None:
    outcome = proxy.command("doctor", "--target", f"www.test:{web.port}")
    assert outcome.returncode == 0, outcome.stdout
    is_arti = "tor.mode=arti" in tor
    assert ("could not be proven" in outcome.stdout) == is_arti
    assert ("Arti shows no circuits" in outcome.stdout) == is_arti


def test_an_arti_that_dies_is_started_again(
    proxy: Isoproxy, web: WebServer, tor: list[str]
) -> None:
    if not any(setting.startswith("tor.arti_binary") for setting in tor):
        pytest.skip("it is not ours to start")
    subprocess.run(["pkill", "-KILL", "-P", str(proxy.pid), "-x", "arti"], check=True)
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(Refused, ConnectionError, socket.timeout):
            exit_of_stream(proxy, web, b"later")
            return
        assert time.monotonic() < deadline
        time.sleep(0.5)
