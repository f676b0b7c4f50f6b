"""Everything that the chaos run can break, and ways to tell whether it is whole again.

Theory of operation
    A private Tor network with a client of its own for isoproxy, three ElectrumX servers (the
    last behind a tap that can lie), an echo server and a v2 Bitcoin node.  `stemns` with a
    name plugin of its own serves another client.  isoproxy lives in one directory and at one
    address through all its restarts; libfaketime gives it a clock that can be moved.

Invariants
    What is judged is what clients see, and what is on disk: every stored header is the
    chain's own at that height, in a file that isoproxy's own reader takes whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.chain.store import HeaderStore
from tests.kit.dial import Refused, dial, receive_exactly
from tests.kit.electrumx import ElectrumX, ElectrumXServers
from tests.kit.isoproxy_process import Isoproxy, children, system
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.ports import free_port
from tests.kit.servers import Server
from tests.kit.tornet import Node, TorNetwork
from tests.network.bitcoin_ends import V1Client, v2_node
from tests.network.name_world import CONFIRMATIONS, copy_lines
from tests.network.test_endurance import Echo

NAMES: Final = 4
FAKETIME: Final = next(
    (str(file) for file in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), ""
)
STATE_KB: Final = 256
"""The size of the disk that isoproxy's state is on."""


class LyingTap(Server):
    """Passes on what a name server says; while `lying`, with a digit changed here and there."""

    def __init__(self, host: str, server: tuple[str, int], chance: random.Random) -> None:
        self.server, self.chance = server, chance
        self.lying = False
        super().__init__(host, _Lied)

    def say(self, data: bytes) -> bytes:
        if not self.lying:
            return data
        lie = bytearray(data)
        for at in self.chance.sample(range(len(lie)), min(4, len(lie))):
            if lie[at] in b"0123456789abcdef":
                lie[at] = self.chance.choice(b"0123456789abcdef")
        return bytes(lie)


class _Lied(socketserver.BaseRequestHandler):
    server: LyingTap

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self.server.server, 10) as up:
            up.settimeout(None)
            there = threading.Thread(target=copy_lines, args=(self.request, up), daemon=True)
            there.start()
            with contextlib.suppress(OSError):
                while data := up.recv(1 << 16):
                    self.request.sendall(self.server.say(data))
            for side in (up, self.request):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
            there.join(10)


@dataclass
class World:
    """All of it; `proxy` is the isoproxy that runs now."""

    directory: Path
    chance: random.Random
    network: TorNetwork
    tor: Node
    servers: list[ElectrumX]
    tap: LyingTap
    chain: RegtestChain
    echo: Echo
    peer_port: int
    stemns_tor: Node
    stemns: subprocess.Popen[bytes]
    settings: list[str]
    port: int
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    proxy: Isoproxy = field(init=False)

    # -- isoproxy's life

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def start(self) -> None:
        """A new isoproxy where the last one was."""
        self.proxy = Isoproxy(
            self.directory,
            self.settings,
            listeners=[f'address = "127.0.0.1:{self.port}"'],
            wrapper=["env", f"LD_PRELOAD={FAKETIME}", *self._clock()] if FAKETIME else [],
            develop=False,
            expected=["reload_refused"],
        )
        self.proxy.__enter__()

    def kill(self) -> None:
        """As a crash would; what it logged until then must be well-formed."""
        self.proxy.kill()
        self.proxy.assert_clean_log()

    def set_clock(self, offset_s: int) -> None:
        """Let isoproxy's clock be so many seconds ahead, from now on."""
        fresh = self.directory / "clock.new"
        fresh.write_text(f"{offset_s:+d}s")
        fresh.replace(self.directory / "clock")

    def _clock(self) -> list[str]:
        return [
            f"FAKETIME_TIMESTAMP_FILE={self.directory}/clock",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "FAKETIME_DONT_RESET=1",
        ]

    # -- what clients see

    def serves(self, deed: str, within: float = 120.0) -> None:
        """All that isoproxy offers works; notes how long that took."""
        began = time.monotonic()
        waiting = [self._echoes, self._names, self._speaks_v2, self._follows_the_chain]
        while waiting:
            try:
                waiting[0]()
                waiting.pop(0)
            except (Refused, OSError, EOFError) as error:
                what = waiting[0].__name__.strip("_")
                assert time.monotonic() - began < within, (
                    f"after {deed}: {what} not in {within} s: {error!r}\n{self.proxy.text()}"
                )
                time.sleep(0.2)
        self.recoveries.setdefault(deed, []).append(round(time.monotonic() - began, 1))
        assert not self.proxy.status()["counters"]["defects"], self.proxy.text()

    def _user(self) -> bytes:
        return b"judge %d" % self.chance.randrange(1 << 30)

    def _echoes(self, host: str = "echo.test") -> None:
        word = self.chance.randbytes(100)
        with dial(
            self.proxy.address, host, self.echo.port, user=self._user(), timeout=30
        ) as stream:
            stream.sendall(word)
            assert receive_exactly(stream, len(word)) == word, "an echo came back wrong"

    def _names(self) -> None:
        self._echoes(f"chaos-{self.chance.randrange(NAMES)}.bit")

    def _speaks_v2(self) -> None:
        with dial(
            self.proxy.address, "peer.test", self.peer_port, user=self._user(), timeout=30
        ) as stream:
            peer = V1Client(stream)
            peer.hello()
            peer.ping()

    def _follows_the_chain(self) -> None:
        """Names that answer from an old block are no sign of life."""
        if (tip := self.proxy.status()["names"]["tip"]) != self.chain.tip:
            raise ConnectionError(f"the tip is {tip}, not {self.chain.tip}")

    def plugin_serves(self, within: float = 60.0) -> None:
        """Tor's own port, by `stemns` and its plugin."""
        deadline = time.monotonic() + within
        while True:
            try:
                dial(self.stemns_tor.socks, "web.bit", self.echo.port, user=self._user()).close()
                return
            except (Refused, OSError) as error:
                assert time.monotonic() < deadline, f"the plugin's names: {error!r}"
                time.sleep(0.2)

    def plugins(self) -> list[int]:
        """The process ids of the plugins of `stemns`."""
        return children(self.stemns.pid)

    # -- what is on disk

    def judge_state(self) -> int:
        """Fails if a stored header is not the chain's; returns how many there are."""
        found = self.state / "names"
        with tempfile.TemporaryDirectory(prefix="state") as name:
            copy = Path(name) / "names"
            shutil.copytree(found, copy)
            store = HeaderStore(copy, REGTEST, REGTEST.anchor)
            down, up, _ = store.load()
            store.close()
        stored = [*reversed(down), *up]
        true = [header[:80] for header in self.chain.headers()]
        assert stored == true[: len(stored)], "the stored headers are not the chain's"
        return len(stored)

    def block(self) -> None:
        """One more block, which renews a name: regtest's live for 30."""
        number = self.chain.tip % NAMES
        value = json.dumps({"ip": self.network.server_ip}).encode()
        self.chain.update(b"d/chaos-%d" % number, value)


@contextlib.contextmanager
def world(directory: Path, chance: random.Random) -> Iterator[World]:
    """All of it, isoproxy started."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(TorNetwork())
        host = network.server_ip
        chain = RegtestChain.recorded()
        for number in range(NAMES):
            chain.update(b"d/chaos-%d" % number, json.dumps({"ip": host}).encode())
        chain.mine_empty(CONFIRMATIONS)
        daemon = stack.enter_context(NamecoinDaemon(chain))
        servers = stack.enter_context(ElectrumXServers(directory / "x", daemon.url, 3, host))
        tap = stack.enter_context(LyingTap(host, (host, servers[2].tcp_port), chance))
        echo = Echo(host)
        stack.callback(echo.close)
        _, peer_port = stack.enter_context(v2_node(host))
        tor = stack.enter_context(network.temporary_client())
        stemns_tor = stack.enter_context(network.temporary_client("__LeaveStreamsUnattached 1"))
        stemns = stack.enter_context(_stemns(directory, stemns_tor))
        ports = [servers[0].tcp_port, servers[1].tcp_port, tap.port]
        electrum = {
            "network": "regtest",
            "servers": [f"{host}:{port}:t" for port in ports],
            "allow_plain": True,
            "confirmations": CONFIRMATIONS,
            "circuits_per_minute": 6000,
        }
        settings = [
            *system(tor),
            "names.backend=electrum",
            *(f"names.electrum.{key}={json.dumps(value)}" for key, value in electrum.items()),
            "names.allow_private_addresses=true",
            f"bitcoin.ports=[{peer_port}]",
        ]
        there = World(
            directory,
            chance,
            network,
            tor,
            servers,
            tap,
            chain,
            echo,
            peer_port,
            stemns_tor,
            stemns,
            settings,
            free_port(),
        )
        stack.enter_context(_small_disk(there.state))
        there.set_clock(0)
        there.start()
        try:
            yield there
            there.proxy.stop()
        finally:
            there.proxy.kill()


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    """Where we may: a disk of its own for isoproxy's state."""
    place.mkdir(mode=0o700, parents=True)
    if os.geteuid() != 0:
        yield
        return
    options = f"size={STATE_KB}k,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def _stemns(directory: Path, tor: Node) -> Iterator[subprocess.Popen[bytes]]:
    """`stemns` at a tor's control port, its names by a plugin."""
    (directory / "hosts").write_text("web.bit echo.test\n")
    plugin = [sys.executable, "-m", "prop279", "--hosts", str(directory / "hosts")]
    config = directory / "stemns.toml"
    config.write_text(
        f"[stemns]\ncontrol = 'unix:{tor.control_path}'\n[services]\nbit = {plugin!r}\n"
    )
    with (
        (directory / "stemns.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "stemns_plugin", "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"stemns: streams are served\n"
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
