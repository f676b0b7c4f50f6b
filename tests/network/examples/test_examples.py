"""The examples, run as they are, on the private network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.interop.nodes import rust_program
from tests.kit.repository import ROOT
from tests.kit.service import Outcome, environment, running, through
from tests.kit.socks_port import SocksPort, refusing
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness

EXAMPLES = ROOT / "examples"
LIBP2P = ROOT / ".cache" / "libp2p"
TIMEOUT_S = 90.0
TRIES = 10


@pytest.fixture(scope="session")
def libp2p() -> str:
    """A Python that has py-libp2p beside what isoproxy's client needs."""
    requirements = EXAMPLES / "libp2p" / "requirements.txt"
    python = LIBP2P / "bin" / "python"
    done = LIBP2P / "requirements.txt"
    if not done.exists() or done.read_text() != requirements.read_text():
        venv.create(LIBP2P, clear=True, with_pip=True)
        words = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        made = subprocess.run(
            [*words, "-e", str(ROOT)], capture_output=True, text=True, timeout=600, check=False
        )
        if made.returncode:
            pytest.skip(f"py-libp2p cannot be installed here: {made.stderr.strip()[-300:]}")
        done.write_text(requirements.read_text())
    return str(python)


def surroundings(directory: Path, python: str) -> dict[str, str]:
    """Another Python must not find the packages of this one; programs find `isoproxy`."""
    found = environment(directory)
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found["PATH"]])
    if python != sys.executable:
        found["PYTHONPATH"] = str(ROOT)
        found.pop("PYTHONWARNINGS")
    return found


@contextlib.asynccontextmanager
async def example(
    directory: Path, *words: str, python: str = sys.executable
) -> AsyncIterator[asyncio.StreamReader]:
    """A program of the examples while it runs; yields its output."""
    with (directory / "example.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            python,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=surroundings(directory, python),
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        await process.wait()


async def line_of(output: asyncio.StreamReader) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        line = (await output.readline()).decode()
    assert line, "the example ended; see example.log"
    return line.strip()


async def run(directory: Path, *words: str, python: str = sys.executable) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        python,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=surroundings(directory, python),
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def until_it_works(directory: Path, *words: str, python: str = sys.executable) -> Outcome:
    """A new onion service is found a few seconds after its publication."""
    for _ in range(TRIES):
        outcome = await run(directory, *words, python=python)
        if outcome.code == 0:
            return outcome
        await asyncio.sleep(0.5)
    raise AssertionError(outcome.err)


def control(network: TorNetwork) -> tuple[str, ...]:
    path = network.relays[1].control_path
    return ("--set", "tor.mode=system", "--set", f"tor.control=unix:{path}")


async def test_echo(short_path: Path, tor_network: TorNetwork) -> None:
    server = (str(EXAMPLES / "echo" / "server.py"), *control(tor_network))
    async with (
        running(short_path, *through(tor_network.client)) as service,
        example(short_path, *server) as output,
    ):
        address, multiaddr = (await line_of(output)).split()
        assert address.endswith(".onion:7")
        client = (str(EXAMPLES / "echo" / "client.py"), multiaddr, "hello there")
        proxy = ("--proxy", f"127.0.0.1:{service.port()}", "--isolation", "alice")
        assert (await until_it_works(short_path, *client, *proxy)).out == "hello there\n"


async def ends_with_what_it_published(directory: Path, script: Path, python: str) -> None:
    """Nobody else may get the port that a service still leads to."""
    nowhere = ("--set", "tor.mode=system", "--set", "tor.control=127.0.0.1:1")
    process = await asyncio.create_subprocess_exec(
        *(python, str(script), *nowhere),
        stderr=asyncio.subprocess.PIPE,
        env=surroundings(directory, python),
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while b"control port" not in await process.stderr.readline():
                pass
            process.terminate()
            while await process.stderr.read(1000):  # open as long as either of them is there
                pass
            await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


@pytest.mark.timeout(30)
async def test_echo_server_ends_with_what_it_published(short_path: Path) -> None:
    await ends_with_what_it_published(short_path, EXAMPLES / "echo" / "server.py", sys.executable)


@pytest.mark.interop
@pytest.mark.timeout(900)
async def test_libp2p_listener_ends_with_what_it_published(short_path: Path, libp2p: str) -> None:
    await ends_with_what_it_published(short_path, EXAMPLES / "libp2p" / "listener.py", libp2p)


@pytest.mark.interop
@pytest.mark.timeout(900)
async def test_libp2p_peers_without_an_isolation_id_share_with_nobody(
    short_path: Path, libp2p: str
) -> None:
    peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
    dialer = (str(EXAMPLES / "libp2p" / "dialer.py"), f"/ip4/192.0.2.1/tcp/4001/p2p/{peer}")
    async with SocksPort(refusing(b"\x05\x05\x00\x01" + bytes(6))) as port:
        for _ in range(2):
            outcome = await run(short_path, *dialer, "--proxy", str(port.endpoint), python=libp2p)
            assert outcome.code != 0
    names = [request.username for request in port.requests]
    assert len(names) >= 2
    assert len(set(names)) == len(names)


@pytest.mark.interop
@pytest.mark.timeout(900)  # the first run installs py-libp2p
async def test_libp2p_ping_each_peer_on_a_circuit_of_its_own(
    short_path: Path, tor_network: TorNetwork, libp2p: str
) -> None:
    def dialer(multiaddr: str, isolation: str, proxy: str) -> tuple[str, ...]:
        script = str(EXAMPLES / "libp2p" / "dialer.py")
        return script, multiaddr, "--isolation", isolation, "--proxy", proxy

    listener = (str(EXAMPLES / "libp2p" / "listener.py"),)
    await each_peer_on_a_circuit_of_its_own(short_path, tor_network, libp2p, listener, dialer)


@pytest.mark.interop
@pytest.mark.timeout(3600)  # the first run builds rust-libp2p
async def test_rust_libp2p_ping_each_peer_on_a_circuit_of_its_own(
    short_path: Path, tor_network: TorNetwork
) -> None:
    def dialer(multiaddr: str, isolation: str, proxy: str) -> tuple[str, ...]:
        return "dial", multiaddr, isolation, proxy

    program = rust_program("ping-through-tor", EXAMPLES / "libp2p-rust")
    await each_peer_on_a_circuit_of_its_own(short_path, tor_network, program, ("listen",), dialer)
    # another peer than the one that answers, and what cannot go through Tor
    for wrong in ("/dns4/x.test/udp/4001/quic-v1", "/ip4/192.0.2.1/tcp/1/ws"):
        outcome = await run(short_path, *dialer(wrong, "x", "127.0.0.1:1"), python=program)
        assert outcome.code != 0


async def each_peer_on_a_circuit_of_its_own(
    directory: Path,
    network: TorNetwork,
    program: str,
    listener: tuple[str, ...],
    dialer: Callable[[str, str, str], tuple[str, ...]],
) -> None:
    """Two peers ping a third behind an onion service; `dialer(multiaddr, isolation, proxy)`."""
    async with (
        running(directory, *through(network.client)) as service,
        example(directory, *listener, *control(network), python=program) as output,
    ):
        multiaddr = await line_of(output)
        onion = multiaddr.split("/")[2].partition(":")[0] + ".onion"
        with Witness(network.client) as witness:
            start = witness.mark()
            for peer in ("peer 1", "peer 2"):
                words = dialer(multiaddr, peer, f"127.0.0.1:{service.port()}")
                pings = await until_it_works(directory, *words, python=program)
                assert len(pings.out.splitlines()) == 3
                assert all(line.startswith("ping ") for line in pings.out.splitlines())
            witness.settle()
            streams = [
                stream
                for stream in witness.streams(after=start)
                if stream.host == onion and stream.succeeded
            ]
            witness.assert_isolated(streams)
            assert len({(one.username, one.password) for one in streams}) == 2
