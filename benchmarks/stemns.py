"""How long `stemns` keeps the streams that are not its own: `python -m benchmarks.stemns`.

A client of a private Tor network leaves its streams to a controller.  Measured is the time
from the event that a stream waits (CONTROLLER_WAIT) to the one that it is on its way
(SENTCONNECT), as another connection sees them, with each of these in charge:

    attaches alone    the least that any controller does: on the event, ATTACHSTREAM
    asks, attaches    the least that `stemns` can do, because events may be forged: on the
                      event, a listing of Tor's streams, then ATTACHSTREAM; nothing is parsed
    stemns            the program, a name plugin with it

Each is a process of its own.  They take turns, a round of streams each, while the others are
suspended; rounds are short, so that what else the machine does meets all of them.  The target
is for the 95th percentiles over the streams of all rounds: that of `stemns` is at most 2 ms
above that of the one that attaches alone.  The exit status says whether it was met.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.front import machine
from benchmarks.report import aligned
from benchmarks.running import StartError
from tests.kit.dial import dial
from tests.kit.servers import EchoServer
from tests.kit.streams import SERVING, StreamEvents, authenticated, stemns_command
from tests.kit.tornet import Node, TorNetError, TorNetwork
from tests.kit.waiting import wait_until

MOST_ADDED_MS: Final = 2.0
HOST: Final = "www.test"
BARE, ASKING, OURS = "attaches alone", "asks, attaches", "stemns"


def attach(control_path: str, cookie_file: str, asks: bool) -> None:
    """Attach every stream as soon as an event says that it waits, for ever."""
    events, queries = (authenticated(control_path, cookie_file) for _ in range(2))
    events.sendall(b"SETEVENTS STREAM\r\n")
    answers = queries.makefile("rb")
    for line in events.makefile("rb"):
        words = line.split(b" ", 4)
        if words[3:4] != [b"CONTROLLER_WAIT"]:
            continue
        if asks:
            queries.sendall(b"GETINFO stream-status\r\nGETINFO end\r\n")
            while not next(answers).startswith(b"552"):
                pass
        events.sendall(b"ATTACHSTREAM %s 0\r\n" % words[2])


@contextlib.contextmanager
def attacher(node: Node, *, asks: bool) -> Iterator[int]:
    """One that does nothing but attach; its process ID."""
    process = multiprocessing.get_context("spawn").Process(
        target=attach, args=(node.control_path, node.cookie, asks)
    )
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def stemns(node: Node) -> Iterator[int]:
    """The program in charge of `node`; its process ID."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        command = stemns_command(Path(directory), node)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                if process.stdout.readline() != SERVING:
                    raise StartError("stemns does not serve streams")
                yield process.pid
            finally:
                process.send_signal(signal.SIGCONT)
                process.terminate()


@contextlib.contextmanager
def in_charge(pid: int) -> Iterator[None]:
    """Let a suspended controller go on for a while."""
    os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGSTOP)


def delays_ms(node: Node, port: int, events: StreamEvents, count: int) -> list[float]:
    """How long each of so many streams, one after the other, waited for its controller."""
    dial(node.socks, HOST, port).close()  # whoever is in charge has caught up
    start = len(events.lines)
    for _ in range(count):
        dial(node.socks, HOST, port).close()
    wait_until(lambda: len(events.moments(start, "SENTCONNECT")) >= count)
    sent = events.moments(start, "SENTCONNECT")
    waiting = events.moments(start, "CONTROLLER_WAIT")
    return [(sent[stream] - waiting[stream]) * 1000 for stream in sent if stream in waiting]


Delays = dict[str, list[float]]
"""By controller: ms."""


def measure(network: TorNetwork, options: argparse.Namespace) -> Delays:
    node = network.add_client("__LeaveStreamsUnattached 1\n")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer(network.server_ip))
        events = stack.enter_context(contextlib.closing(StreamEvents(node)))
        pids: dict[str, int] = {}
        for name, controller in {
            BARE: attacher(node, asks=False),
            ASKING: attacher(node, asks=True),
            OURS: stemns(node),
        }.items():
            pids[name] = stack.enter_context(controller)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        delays: Delays = {name: [] for name in pids}
        for number in range(options.rounds):
            for name in list(pids) if number % 2 == 0 else reversed(pids):
                with in_charge(pids[name]):
                    delays[name] += delays_ms(node, server.port, events, options.streams)
        return delays


def percentile_95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def table(delays: Delays) -> str:
    rows = [["from CONTROLLER_WAIT to SENTCONNECT, ms", "p25", "p50", "p75", "p95", "streams"]]
    for name, values in delays.items():
        quartiles = statistics.quantiles(values, n=4, method="inclusive")
        figures = [f"{value:.2f}" for value in (*quartiles, percentile_95(values))]
        rows.append([name, *figures, str(len(values))])
    return aligned(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.stemns", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="of each controller (default 40)")
    parser.add_argument("--streams", type=int, default=10, help="of each round (default 10)")
    options = parser.parse_args(arguments)
    facts = machine()
    try:
        with TorNetwork() as network:
            delays = measure(network, options)
    except (StartError, TorNetError) as error:
        print(f"stemns was not measured: {error}", file=sys.stderr)
        return 1
    print("  ".join(f"{key} {value}" for key, value in facts.items()), end="\n\n")
    print(table(delays), end="\n\n")
    middle = statistics.median(delays[OURS]) - statistics.median(delays[BARE])
    added = percentile_95(delays[OURS]) - percentile_95(delays[BARE])
    verdict = "met" if added <= MOST_ADDED_MS else "not met"
    print(f"stemns adds {middle:.2f} ms at p50")
    print(f"stemns adds {added:.2f} ms at p95 (<= {MOST_ADDED_MS:g}): {verdict}")
    return 0 if verdict == "met" else 1


if __name__ == "__main__":
    sys.exit(main())
