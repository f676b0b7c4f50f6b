"""Measure the DNS server over UDP on one core, beside ncdns and dnsmasq's answers from memory.

    python -m benchmarks.dns [--seconds 1] [--rounds 3] [--json]

The server is a process pinned to one core, the client another.  Seconds are the server's
processor time: what one core does, whatever else the machine does.  "kept" repeats one
question; "value cached" asks for a new name below one value each time, so that every
answer is put together anew; "signed" wants DNSSEC.  ncdns, whose program NCDNS_PATH names,
has the same value from a stand-in for Namecoin Core's JSON-RPC.  dnsmasq, where it is
installed, holds one name in its configuration: a server in C that does nothing else.  The
exit status is 1 if fewer than 5,000 kept answers a second are given, signed or not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message

from benchmarks.running import cpu_seconds
from isoproxy.dns.answer import Apex
from isoproxy.dns.responder import Responder
from isoproxy.dns.server import DnsServer, DnsSettings
from isoproxy.dns.sign import Signer, ZoneKey
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent, Evidence, Found
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.endpoint import Endpoint
from tests.kit.ports import free_port
from tests.unit.namecoin.rpc.server import RpcServer, core_methods

TARGET_PER_S = 5_000
WINDOW = 32
QUIET_S = 1.0
UNLIMITED = 1e9
VALUE = b'{"ip":"192.0.2.1","map":{"*":{"ip":"192.0.2.2"}}}'


class InstantBackend:
    """Has one value for every name, and has it at once."""

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        return Found(VALUE, 1, "00" * 32, 36_000, Evidence.SPV_CONFIRMED)

    async def close(self) -> None:
        pass


async def serve() -> None:
    """Serve until killed; prints the port."""
    isolator = Isolator()
    key = ZoneKey.generate()
    resolver = Resolver(InstantBackend(), isolator)
    responder = Responder(
        lambda _: resolver,
        isolator,
        Apex("127.0.0.1", key.dnskey),
        signer=Signer(key, time.time),
    )
    server = DnsServer(responder, DnsSettings(Endpoint(host="127.0.0.1", port=0), UNLIMITED))
    await server.open()
    print(server.endpoint.port, flush=True)
    await asyncio.Event().wait()


async def stand_in() -> None:
    """Be a Namecoin Core with one name until killed; prints the address."""
    server = RpcServer(core_methods({b"d/example": VALUE}))
    async with server.running():
        print(server.endpoint, flush=True)
        await asyncio.Event().wait()


def queries(kind: str) -> Iterator[bytes]:
    """Queries of one kind, without end."""
    dnssec = "signed" in kind
    if "kept" in kind:
        wire = dns.message.make_query("example.bit", "A", want_dnssec=dnssec).to_wire()
        yield from itertools.repeat(wire)
    wire = dns.message.make_query("000000000.example.bit", "A", want_dnssec=dnssec).to_wire()
    start = time.time_ns() % 10**9
    for number in itertools.count(start):
        yield wire[:13] + b"%09d" % (number % 10**9) + wire[22:]


def rate(port: int, kind: str, seconds: float, pid: int) -> float:
    """Answers per second of the server's processor time, WINDOW queries at a time."""
    asked = queries(kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        for _ in range(WINDOW):
            sock.send(next(asked))
        answered = 0
        start, spent = time.perf_counter(), cpu_seconds(pid)
        while time.perf_counter() - start < seconds:
            if not select.select([sock], [], [], QUIET_S)[0]:
                raise RuntimeError(f"{kind}: no answer within {QUIET_S} s")
            try:
                while True:
                    answer = sock.recv(4096)
                    if answer[3] & 0xF or not answer[7]:
                        raise RuntimeError(f"{kind}: an answer without a record")
                    answered += 1
                    sock.send(next(asked))
            except BlockingIOError:
                pass
        return answered / (cpu_seconds(pid) - spent)


def pinned(command: list[str], core: int, *, as_nobody: bool = False) -> subprocess.Popen[str]:
    """A process that uses this core alone."""
    nobody: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **(nobody if as_nobody else {}),
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def measure_ours(seconds: float, core: int) -> dict[str, float]:
    process = pinned([sys.executable, "-m", "benchmarks.dns", "--serve"], core)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        kinds = ("kept", "kept, signed", "value cached", "value cached, signed")
        return {kind: rate(port, kind, seconds, process.pid) for kind in kinds}
    finally:
        process.kill()
        process.communicate()


def measure_ncdns(seconds: float, core: int) -> dict[str, float]:
    path = os.environ.get("NCDNS_PATH") or shutil.which("ncdns")
    if path is None:
        return {}
    rpc = pinned([sys.executable, "-m", "benchmarks.dns", "--stand-in"], core)
    try:
        assert rpc.stdout is not None
        address, port = rpc.stdout.readline().strip(), free_port()
        with tempfile.TemporaryDirectory() as directory:
            settings = Path(directory) / "ncdns.conf"
            settings.write_text(
                f'[ncdns]\nbind = "127.0.0.1:{port}"\nnamecoinrpcaddress = "{address}"\n'
                'namecoinrpcusername = "user"\nnamecoinrpcpassword = "pass"\n'
            )
            Path(directory).chmod(0o755)
            command, is_root = [path, f"-conf={settings}"], os.geteuid() == 0  # which it refuses
            return measure_program("ncdns", command, port, seconds, core, as_nobody=is_root)
    finally:
        rpc.kill()
        rpc.communicate()


def measure_dnsmasq(seconds: float, core: int) -> dict[str, float]:
    path = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        return {}
    port = free_port()
    options = (
        *("-k", "-C", "/dev/null", "-p", str(port), "-a", "127.0.0.1", "-z", "-R", "-h"),
        *("--address=/example.bit/192.0.2.1", "--user=", "--pid-file="),
    )
    return measure_program("dnsmasq", [path, *options], port, seconds, core)


def measure_program(
    name: str,
    command: list[str],
    port: int,
    seconds: float,
    core: int,
    *,
    as_nobody: bool = False,
) -> dict[str, float]:
    """What a server of others gives at `port`; nothing if it does not answer in time."""
    process = pinned(command, core, as_nobody=as_nobody)
    try:
        for _ in range(50):
            try:
                return {name: rate(port, "kept", seconds, process.pid)}
            except (ConnectionError, RuntimeError):
                time.sleep(0.1)
        return {}
    finally:
        process.kill()
        process.communicate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve or options.stand_in:
        asyncio.run(serve() if options.serve else stand_in())
    cores = sorted(os.sched_getaffinity(0))
    best: dict[str, float] = {}
    os.sched_setaffinity(0, {cores[-1]})
    for _ in range(options.rounds):
        for measure in (measure_ours, measure_ncdns, measure_dnsmasq):
            for kind, found in measure(options.seconds, cores[0]).items():
                best[kind] = max(best.get(kind, 0.0), found)
    if options.json:
        print(json.dumps({"per_second": best, "target": TARGET_PER_S}))
    else:
        for kind, found in best.items():
            print(f"{kind:>22}: {found:>9,.0f} answers/s")
        for name, reason in (("ncdns", "set NCDNS_PATH"), ("dnsmasq", "not installed")):
            if name not in best:
                print(f"{name:>22}: absent, {reason}")
    return 0 if min(best["kept"], best["kept, signed"]) >= TARGET_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
