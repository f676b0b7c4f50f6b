"""Protocols in which the server speaks first, through isoproxy and through Tor's own SocksPort.

    python -m benchmarks.banners [--streams N] [--strict]

isoproxy looks at a client's first bytes for Bitcoin's v1, on every port.  A client of SMTP, SSH
or FTP says nothing until it has read the server's banner: nothing may wait for it.  Each stream
through a private Tor network is timed twice: from the SOCKS answer to the banner, and to the answer
to the client's first line; on a port of Bitcoin's, on any other, and through Tor alone.  The ways
take turns stream by stream, in an order drawn each time, each on circuits that are built already.
Printed are the 95th percentiles and their ratios to Tor's own port.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import socketserver
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.front import machine
from benchmarks.report import aligned
from tests.kit.dial import dial
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.servers import Server
from tests.kit.tornet import Address, TorNetwork

MOST: Final = 1.05
USERS: Final = 4
"""Tuples for each way, so that no one circuit decides."""
LINES: Final = {
    "SMTP": (b"220 mail.test ESMTP\r\n", b"EHLO client.test\r\n"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0-client\r\n"),
    "FTP": (b"220 ready\r\n", b"USER anonymous\r\n"),
}
"""What the server says first, and the client then."""
TOR, LISTED, OTHER = "Tor's SocksPort", "isoproxy, a port of Bitcoin's", "isoproxy, another port"

Times = tuple[float, float]


class Speaker(Server):
    """Says its banner at once, and answers the client's first line."""

    def __init__(self, host: str, banner: bytes) -> None:
        super().__init__(host, _Speaker)
        self.banner = banner


class _Speaker(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Speaker)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.sendall(self.server.banner)
        if _line(self.request):
            self.request.sendall(b"250 ok\r\n")


def _line(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and (more := sock.recv(4096)):
        data += more
    return data


def one(proxy: Address, port: int, user: int, says: bytes) -> Times:
    """Milliseconds from the SOCKS answer to the banner, and to the answer to the first line."""
    with dial(proxy, "peer.test", port, user=b"user%d" % user) as sock:
        began = time.perf_counter()
        assert _line(sock)
        banner = time.perf_counter() - began
        sock.sendall(says)
        assert _line(sock)
        return banner * 1000, (time.perf_counter() - began) * 1000


def measure(
    ways: dict[str, tuple[Address, int]], says: bytes, streams: int
) -> dict[str, list[Times]]:
    """So many streams each way, in turns."""
    found: dict[str, list[Times]] = {way: [] for way in ways}
    for number in range(-USERS, streams):
        for way in random.sample(list(ways), len(ways)):
            taken = one(*ways[way], number % USERS, says)
            if number >= 0:  # the first of each tuple built its circuit
                found[way].append(taken)
    return found


def p95(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def run(streams: int) -> tuple[list[list[str]], bool]:
    """The table's rows, and whether every ratio is within the bound."""
    rows = [["", "", "banner, p95 ms", "answer, p95 ms", "ratios", ""]]
    met = True
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(TorNetwork())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        servers = {
            name: [stack.enter_context(Speaker(net.server_ip, banner)) for _ in range(2)]
            for name, (banner, _) in LINES.items()
        }
        listed = [listed.port for listed, _ in servers.values()]
        settings = [*system(net.client), f"bitcoin.ports={listed}"]
        ours = stack.enter_context(Isoproxy(folder, settings, develop=False))
        ours.wait_ready()
        for name, (on_listed, elsewhere) in servers.items():
            ways: dict[str, tuple[Address, int]] = {
                TOR: (net.client.socks, elsewhere.port),
                LISTED: (ours.address, on_listed.port),
                OTHER: (ours.address, elsewhere.port),
            }
            found = measure(ways, LINES[name][1], streams)
            limits = [p95(times) for times in zip(*found[TOR], strict=True)]
            for way, all_times in found.items():
                times = [p95(times) for times in zip(*all_times, strict=True)]
                ratios = [time / limit for time, limit in zip(times, limits, strict=True)]
                good = max(ratios) <= MOST
                met = met and good
                shown = [f"{time:.2f}" for time in times]
                verdict = "" if way == TOR else "met" if good else "not met"
                rows.append([name, way, *shown, " ".join(f"{r:.3f}" for r in ratios), verdict])
    return rows, met


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.banners")
    parser.add_argument("--streams", type=int, default=600, help="each way (default 600)")
    parser.add_argument("--strict", action="store_true", help=f"fail above {MOST}")
    options = parser.parse_args(arguments)
    print("  ".join(f"{key} {value}" for key, value in machine().items()), end="\n\n")
    rows, met = run(options.streams)
    print(aligned(rows))
    return int(options.strict and not met)


if __name__ == "__main__":
    sys.exit(main())
