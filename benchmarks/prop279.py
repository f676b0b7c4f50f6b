"""Cached RESOLVE to RESOLVED through the pipe, ours and, where it is there, ncprop279.

    python -m benchmarks.prop279 [--queries N]

Both resolve through the same stand-in for Namecoin Core's JSON-RPC and are asked for the
same fifty names under ten isolation IDs, once to fill their caches and then N times.
NCPROP279_PATH names ncprop279's program; without it only ours is measured, and said so.
Beside the time that passed, the plugin's own processor time is counted: what one core does,
whatever else the machine does.  Also printed: the plugin with a resolver that answers from
a table, which is the pipe and the protocol alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.running import cpu_seconds
from tests.unit.namecoin.rpc.server import RpcServer, core_methods

NAMES = 50
IDS = 10
VALUES = {b"d/name%d" % number: b'{"ip":"192.0.2.1"}' for number in range(NAMES)}
RUNS = 3


def lines(count: int) -> bytes:
    return b"".join(
        b"RESOLVE %d name%d.bit id-%d\n" % (number, number % NAMES, number // NAMES % IDS)
        for number in range(count)
    )


def ask(process: subprocess.Popen[bytes], count: int) -> float:
    """Seconds until `count` queries are answered."""
    assert process.stdin is not None
    assert process.stdout is not None
    data, stdin = lines(count), process.stdin

    def write() -> None:
        stdin.write(data)
        stdin.flush()

    writer = threading.Thread(target=write)
    began = time.perf_counter()
    writer.start()
    answered = 0
    while answered < count:
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            raise SystemExit("the plugin has ended")
        answered += chunk.count(b"\n")
    took = time.perf_counter() - began
    writer.join()
    return took


def measure(title: str, command: Sequence[str], count: int) -> None:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100).startswith(b"INIT 1 0")
        ask(process, NAMES * IDS)
        spent = cpu_seconds(process.pid)
        rates = [count / ask(process, count) for _ in range(RUNS)]
        spent = (cpu_seconds(process.pid) - spent) / (RUNS * count)
        process.terminate()
    print(
        f"{title:32s} {statistics.median(rates):9.0f} answers/s, {1 / spent:9.0f} per second of "
        f"processor time  (runs: {RUNS})",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=50_000)
    count = parser.parse_args().queries
    ours = [sys.executable, "-m", "prop279"]
    theirs = os.environ.get("NCPROP279_PATH") or shutil.which("ncprop279")
    server = RpcServer(core_methods(VALUES))
    with tempfile.TemporaryDirectory() as directory:
        hosts = Path(directory) / "hosts"
        hosts.write_text("".join(f"name{number}.bit 192.0.2.1\n" for number in range(NAMES)))
        settings = Path(directory) / "ncprop279.conf"
        async with server.running():
            settings.write_text(
                f"[ncprop279]\nnamecoinrpcaddress = '{server.endpoint}'\n"
                "namecoinrpcusername = 'user'\nnamecoinrpcpassword = 'pass'\n"
            )
            contenders = [
                ("ours, from a table", [*ours, "--hosts", str(hosts)]),
                ("ours, resolver's cache", [*ours, f"-conf={settings}"]),
            ]
            if theirs is not None:
                contenders.append(("ncprop279", [theirs, f"-conf={settings}"]))
            for title, command in contenders:
                await asyncio.to_thread(measure, title, command, count)
    if theirs is None:
        print("ncprop279 was not measured: set NCPROP279_PATH to its program")


if __name__ == "__main__":
    asyncio.run(main())
