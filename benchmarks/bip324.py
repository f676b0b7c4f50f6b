"""Measure the v1 <-> v2 translation against the limit its primitives set.

    python benchmarks/bip324.py [--seconds 1] [--json] [--rust]

In one run: the limit (OpenSSL's ChaCha20-Poly1305 in place, and the double SHA-256 that
v1 demands, over the same payload, large or small), the translation in memory both ways,
the translation through sockets (CPU seconds of this process's bridge alone) beside what
primitives and the kernel's copying take by themselves, a lone message, and the handshake.
What is near its bound is read beside the limit of the same run: a busy machine moves
both.  `--rust` adds the cipher of the Rust `bip324` crate (benchmarks/bip324-rust, built
with cargo).  The exit status is 1 if a target of ours is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from multiprocessing.synchronize import Event as EventType
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from isoproxy.bitcoin.bip324.transport import State, Transport
from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.messages import MAINNET, padded
from isoproxy.bitcoin.options import Deadlines, TransportOptions
from isoproxy.bitcoin.pump import pump
from isoproxy.bitcoin.translator import Translator
from isoproxy.bitcoin.v1 import VERSION, encode

PROCESSES = multiprocessing.get_context("fork")
Events = tuple[EventType, EventType]
MB = 1_000_000
BULK = 1_000_000
SMALL = 37
CIPHER_SIZES = (37, 1_000, 16_000, 1_000_000)
ROUNDS = 5
SOCKET_ROUNDS = 10
"""More of them: what the kernel takes to copy a megabyte varies by a factor of three."""
TARGETS = {
    "bulk_v2_to_v1_share_of_limit": (">=", 0.90),
    "bulk_v1_to_v2_share_of_limit": (">=", 0.90),
    "sockets_mb_per_cpu_second": (">=", 800.0),
    "small_batched_us": ("<=", 4.0),
    "small_alone_us": ("<=", 25.0),
    "handshake_us": ("<=", 150.0),
}
HELLO = encode(MAINNET, VERSION, bytes(80) + b"\x00" + bytes(5))


def per_call(work: Callable[[], object], seconds: float) -> float:
    """Best CPU seconds per call of `work` over several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        calls, began = 0, time.process_time()
        while (spent := time.process_time() - began) < seconds / ROUNDS:
            work()
            calls += 1
        best = min(best, spent / calls)
    return best


def limit(size: int, seconds: float) -> float:
    """Seconds that AEAD and double SHA-256 alone take for `size` bytes."""
    aead, data, out = ChaCha20Poly1305(os.urandom(32)), os.urandom(size), bytearray(size + 16)

    def both() -> None:
        aead.encrypt_into(bytes(12), data, b"", out)
        sha256(sha256(data).digest()).digest()

    return per_call(both, seconds)


def connected() -> tuple[Translator, Transport]:
    """A translator and the v2 peer it has shaken hands with."""
    translator = Translator(MAINNET, TransportOptions(garbage=(0, 0)), initiator=True, now=0)
    peer = TransportOptions(garbage=(0, 0)).transport(MAINNET, initiator=False)
    feed(translator, HELLO)
    while not translator.ready or peer.state is not State.READY:
        output, _ = peer.receive(translator.peer.outbox.take())
        translator.peer.inbox.append(output)
        translator.received(translator.peer, 0, 0)
    return translator, peer


def feed(translator: Translator, data: bytes) -> None:
    """Bytes from the client, as from a socket."""
    inbox = translator.client.inbox
    while data:
        room = inbox.space()[: len(data)]
        room[:] = data[: len(room)]
        translator.received(translator.client, len(room), 0)
        data = data[len(room) :]


def outgoing(size: int, batch: int, seconds: float) -> float:
    """CPU seconds a message takes from v1 to v2 in memory."""
    translator, _ = connected()
    message = encode(MAINNET, padded("tx"), os.urandom(size)) * batch
    inbox = translator.client.inbox

    def once() -> None:
        inbox.reserve(len(message))[:] = message  # the copy stands for recv_into
        translator.received(translator.client, len(message), 0)
        translator.peer.outbox.drop(len(translator.peer.outbox))

    return (per_call(once, seconds) - copying(message, seconds / 4)) / batch


def copying(data: bytes, seconds: float) -> float:
    """Seconds of the copy that stands for the kernel's, to be subtracted."""
    queue = ByteQueue()

    def once() -> None:
        queue.reserve(len(data))[:] = data

    return per_call(once, seconds)


def incoming(size: int, batch: int, seconds: float) -> float:
    """CPU seconds a message takes from v2 to v1 in memory."""
    best = float("inf")
    contents = bytes([21]) + os.urandom(size)
    for _ in range(ROUNDS):
        translator, peer = connected()
        spent, messages = 0.0, 0
        while spent < seconds / ROUNDS:
            packets = b"".join(peer.seal(contents) for _ in range(batch))
            translator.peer.inbox.reserve(len(packets))[:] = packets
            began = time.process_time()
            translator.received(translator.peer, len(packets), 0)
            spent += time.process_time() - began
            translator.client.outbox.drop(len(translator.client.outbox))
            messages += batch
        best = min(best, spent / messages)
    return best


def handshake(seconds: float) -> float:
    """CPU seconds of one side's part of a handshake."""
    options = TransportOptions(garbage=(0, 0))

    def both() -> None:
        initiator = options.transport(MAINNET, initiator=True)
        responder = options.transport(MAINNET, initiator=False)
        reply, _ = responder.receive(initiator.opening())
        reply, _ = initiator.receive(reply)
        responder.receive(reply)

    return per_call(both, seconds) / 2


def cipher(size: int, seconds: float) -> float:
    """MB/s of our cipher, sealing and opening; what the Rust crate is measured by too."""
    translator, peer = connected()
    plaintext, out = bytes(1 + size), ByteQueue()

    def once() -> None:
        translator.transport.seal_onto(plaintext, peer.inbox)
        peer.open_next(out, 0)

    feed(translator, HELLO)
    peer.receive(translator.peer.outbox.take())
    return 2 * size / per_call(once, seconds) / MB


def serve(sock: socket.socket, size: int, count: int, turns: bool, events: Events) -> None:
    """A v2 responder, in a process of its own: sends `count` messages and is done.

    With `turns` it waits for an answer to each message, so that nothing is batched.
    """
    transport = TransportOptions(garbage=(0, 0)).transport(MAINNET, initiator=False)
    contents = bytes([18]) + os.urandom(size)
    while transport.state is not State.READY:
        output, _ = transport.receive(sock.recv(65536))
        sock.sendall(output)
    packets = [transport.seal(contents) for _ in range(count)]
    if not turns:
        packets = [b"".join(packets)]
    prepared, go = events
    prepared.set()
    go.wait()
    for packet in packets:
        sock.sendall(packet)
        if turns:
            sock.recv(4096)
    sock.shutdown(socket.SHUT_WR)


def loopback() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def drain(sock: socket.socket, answer: bytes) -> None:
    """The v1 client, in a process of its own: reads all, answers each read with `answer`."""
    room = bytearray(1 << 20)
    sock.sendall(HELLO)
    while sock.recv_into(room):
        if answer:
            sock.sendall(answer)


def through_sockets(size: int, count: int, *, turns: bool = False, unix: bool = False) -> float:
    """CPU seconds of the bridge for each message from a v2 peer to a v1 client.

    With `unix` the peer's side is a unix socket, as the SocksPort of a tor of our own is.
    """
    client_far, client = loopback()
    peer, peer_far = socket.socketpair() if unix else loopback()
    events = (PROCESSES.Event(), PROCESSES.Event())
    answer = encode(MAINNET, padded("pong"), bytes(8)) if turns else b""
    helpers = [
        PROCESSES.Process(target=serve, args=(peer_far, size, count, turns, events)),
        PROCESSES.Process(target=drain, args=(client_far, answer)),
    ]
    for helper in helpers:
        helper.start()
    client_far.close()
    peer_far.close()
    spent = asyncio.run(bridged(client, peer, events))
    client.close()
    peer.close()
    for helper in helpers:
        helper.terminate()
        helper.join()
    return spent / count / (2 if turns else 1)


async def bridged(client: socket.socket, peer: socket.socket, events: Events) -> float:
    """CPU seconds from the moment that the peer begins to send."""
    for sock in (client, peer):
        sock.setblocking(False)
    now = asyncio.get_running_loop().time()
    translator = Translator(MAINNET, TransportOptions(garbage=(0, 0)), initiator=True, now=now)
    task = asyncio.create_task(pump(translator, client, peer, linger=Deadlines().linger))
    prepared, go = events
    await asyncio.to_thread(prepared.wait)
    began = time.process_time()
    go.set()
    await task
    return time.process_time() - began


def copied(size: int, count: int) -> float:
    """CPU seconds to receive a message and send it on: the kernel's part, by the megabyte."""
    client_far, client = loopback()
    peer, peer_far = loopback()
    senders = [
        PROCESSES.Process(target=flood, args=(peer_far, size, count)),
        PROCESSES.Process(target=drain, args=(client_far, b"")),
    ]
    for sender in senders:
        sender.start()
    client_far.close()
    peer_far.close()
    room = memoryview(bytearray(size))
    peer.recv(1)
    began = time.process_time()
    while received := peer.recv_into(room, size, socket.MSG_WAITALL):
        client.sendall(room[:received])
    spent = time.process_time() - began
    client.close()
    peer.close()
    for sender in senders:
        sender.terminate()
        sender.join()
    return spent / count


def flood(sock: socket.socket, size: int, count: int) -> None:
    """Send `count` messages."""
    message = os.urandom(size)
    for _ in range(count):
        sock.sendall(message)
    sock.shutdown(socket.SHUT_WR)


def best_of(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    """The least of some measurements: the one least disturbed by others."""
    return min(measure() for _ in range(rounds))


def alone() -> float:
    """CPU seconds for a small message that is answered before the next one comes."""
    return through_sockets(8, 5000, turns=True)


def on_one_core(measure: Callable[[], float]) -> float:
    """With all processes on one core: what a message costs, and not what waking a core does."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        return measure()
    finally:
        os.sched_setaffinity(0, everywhere)


def rust(seconds: float) -> dict[str, float] | str:
    """MB/s of the Rust crate's cipher by payload size, or why there is no number."""
    if shutil.which("cargo") is None:
        return "cargo is not installed"
    project = Path(__file__).parent / "bip324-rust"
    done = subprocess.run(
        ["cargo", "run", "--release", "--quiet", "--", str(seconds)],
        cwd=project,
        env={**os.environ, "CARGO_TARGET_DIR": str(project.parent.parent / ".cache/bip324-rust")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return "cargo could not build it: " + done.stderr.strip().splitlines()[-1]
    results: dict[str, float] = json.loads(done.stdout)
    return results


def measure(seconds: float) -> dict[str, float]:
    """All our numbers."""
    floor = limit(BULK, seconds)
    v1_to_v2, v2_to_v1 = outgoing(BULK, 1, seconds), incoming(BULK, 4, seconds)
    rounds = [through_sockets(BULK, 400) for _ in range(SOCKET_ROUNDS)]
    bulk, median = min(rounds), statistics.median(rounds)
    bulk_unix = best_of(lambda: through_sockets(BULK, 400, unix=True), SOCKET_ROUNDS)
    kernel = best_of(lambda: copied(BULK, 400), SOCKET_ROUNDS)
    return {
        "limit_mb_per_s": BULK / floor / MB,
        "bulk_v1_to_v2_mb_per_s": BULK / v1_to_v2 / MB,
        "bulk_v2_to_v1_mb_per_s": BULK / v2_to_v1 / MB,
        "bulk_v1_to_v2_share_of_limit": floor / v1_to_v2,
        "bulk_v2_to_v1_share_of_limit": floor / v2_to_v1,
        "sockets_limit_mb_per_cpu_second": BULK / (floor + kernel) / MB,
        "sockets_mb_per_cpu_second": BULK / bulk / MB,
        "sockets_median_mb_per_cpu_second": BULK / median / MB,
        "sockets_unix_mb_per_cpu_second": BULK / bulk_unix / MB,
        "small_limit_us": limit(SMALL, seconds) * 1e6,
        "small_in_memory_v1_to_v2_us": outgoing(SMALL, 500, seconds) * 1e6,
        "small_in_memory_v2_to_v1_us": incoming(SMALL, 500, seconds) * 1e6,
        "small_batched_us": best_of(lambda: through_sockets(SMALL, 100_000), SOCKET_ROUNDS) * 1e6,
        "small_alone_us": on_one_core(lambda: best_of(alone)) * 1e6,
        "small_alone_idle_cores_us": best_of(alone) * 1e6,
        "handshake_us": handshake(seconds) * 1e6,
        **{f"cipher_{size}_mb_per_s": cipher(size, seconds) for size in CIPHER_SIZES},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rust", action="store_true", help="the bip324 crate's cipher beside it")
    arguments = parser.parse_args()
    results: dict[str, object] = {**measure(arguments.seconds)}
    missed = []
    for name, (relation, bound) in TARGETS.items():
        value = results[name]
        assert isinstance(value, float)
        if not (value >= bound if relation == ">=" else value <= bound):
            missed.append(name)
    if arguments.rust:
        results["rust_bip324_cipher_mb_per_s"] = rust(arguments.seconds)
    if arguments.json:
        print(json.dumps({"results": results, "missed": missed}, indent=2))
    else:
        for name, shown in results.items():
            target = TARGETS.get(name)
            note = f"   (target {target[0]} {target[1]:g})" if target else ""
            print(
                f"{name:34} {shown:10.3f}{note}" if isinstance(shown, float) else f"{name} {shown}"
            )
        print("missed:", ", ".join(missed) or "nothing")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
