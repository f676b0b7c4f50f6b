"""Name servers on the private network, and a chain with names that lead to its servers.

Theory of operation
    Three real ElectrumX servers index the recorded chain and the blocks that are mined on
    top of it here.  One is reached by address, with its certificate pinned, one by name
    over TLS, and one as an onion service, where a `Tap` on the server's side hears what is
    asked over each connection.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.kit.electrumx import ElectrumXServers
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.onion import publish
from tests.kit.servers import Server
from tests.kit.tornet import TorNetwork

CONFIRMATIONS: Final = 6
_ONION_PORT: Final = 50001
_BLOCK: Final = 1 << 16


class Tap(Server):
    """Passes connections on to a server; `heard` lists the names asked for over each."""

    def __init__(self, host: str, server: tuple[str, int]):
        self.server = server
        self.heard: list[set[str]] = []
        super().__init__(host, _Tapped)


class _Tapped(socketserver.BaseRequestHandler):
    server: Tap

    def handle(self) -> None:
        names: set[str] = set()
        self.server.heard.append(names)
        with socket.create_connection(self.server.server, 10) as upstream:
            upstream.settimeout(None)
            back = threading.Thread(target=copy_lines, args=(upstream, self.request), daemon=True)
            back.start()
            copy_lines(self.request, upstream, lambda line: names.update(_name_in(line)))
            back.join(10)


def copy_lines(
    source: socket.socket,
    sink: socket.socket,
    each_line: Callable[[bytes], None] = lambda line: None,
) -> None:
    """Copy until either side ends, then end both."""
    rest = b""
    with contextlib.suppress(OSError):
        while data := source.recv(_BLOCK):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                each_line(line)
            sink.sendall(data)
    for side in (source, sink):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def _name_in(line: bytes) -> set[str]:
    """The script hash that a request is about, if it is about a name."""
    request = json.loads(line)
    asks = "get_value_proof" in request["method"] or "get_history" in request["method"]
    return {str(request["params"][0])} if asks else set()


@dataclass(frozen=True)
class NameWorld:
    """`servers` as the configuration writes them; `tap` stands before the last."""

    chain: RegtestChain
    servers: list[str]
    tap: Tap

    def settings(self, **changes: Any) -> list[str]:
        """Settings of isoproxy for these servers; `changes` are of names.electrum."""
        electrum: dict[str, Any] = {
            "network": "regtest",
            "servers": self.servers,
            "confirmations": CONFIRMATIONS,
            "circuits_per_minute": 6000,
            **changes,
        }
        return [
            "names.backend=electrum",
            *(f"names.electrum.{key}={json.dumps(value)}" for key, value in electrum.items()),
        ]


@contextlib.contextmanager
def name_world(
    network: TorNetwork, directory: Path, values: Mapping[str, object]
) -> Iterator[NameWorld]:
    """The servers, and a chain in which the names of `values` have them as JSON."""
    chain = RegtestChain.recorded()
    for name, value in values.items():
        chain.update(name.encode(), json.dumps(value).encode())
    chain.mine_empty(CONFIRMATIONS)
    host = network.server_ip
    with (
        NamecoinDaemon(chain) as daemon,
        ElectrumXServers(directory, daemon.url, 3, host) as (first, second, third),
        Tap(host, (host, third.tcp_port)) as tap,
        publish(network.exits[0], {_ONION_PORT: tap.address}) as onion,
    ):
        servers = [
            f"{host}:{first.tls_port}:s:{first.fingerprint.hex()}",
            f"electrumx.test:{second.tls_port}:s",
            f"{onion.host}:{_ONION_PORT}:t",
        ]
        yield NameWorld(chain, servers, tap)
