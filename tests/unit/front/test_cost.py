"""What a stream costs, in units that no busy machine changes: calls of ours, and bytes.

The client and Tor are played in another thread, in lock-step, so that a stream's events are
always the same ones; counted is what runs in the loop's thread and stands in `isoproxy`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

import isoproxy
from isoproxy.bitcoin.options import Fallback
from isoproxy.front.frontend import FrontEnd
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import ReactorLoop
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.unit.front.test_bitcoin import OK, front_end

MOST_CALLS: Final = 215
"""Functions of ours that a stream calls, from its connection to its end."""
MOST_BYTES: Final = 2200
"""That an idle stream takes, its tables' shares included."""
STREAMS: Final = 100
OURS: Final = str(Path(isoproxy.__file__).parent)
CREDENTIALS: Final = b"\x01\x04user\x04pass"
REQUEST: Final = b"\x05\x01\x00\x01\x7f\x00\x01\x01\x00\x50"
SECONDS: Final = 20.0
_Result = TypeVar("_Result")

Ends = tuple[socket.socket, socket.socket]


class Far:
    """The client of a front end, and the Tor behind it; blocking, for a thread of its own."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.front: object = None

    def open(self) -> Ends:
        """A stream that has carried one byte each way."""
        client = socket.create_connection(self.front, SECONDS)  # type: ignore[arg-type]
        exchange(client, b"\x05\x01\x02", b"\x05\x02")
        exchange(client, CREDENTIALS, b"\x01\x00")
        client.sendall(REQUEST)
        tor, _ = self._listener.accept()
        tor.settimeout(SECONDS)
        assert tor.recv(64) == b"\x05\x01\x02"
        tor.sendall(b"\x05\x02")
        assert tor.recv(512)[-len(REQUEST) :] == REQUEST
        exchange(tor, b"\x01\x00" + OK[2:], b"")
        assert client.recv(64) == OK[2:]
        client.sendall(b"x")
        assert tor.recv(64) == b"x"
        exchange(tor, b"x", b"")
        assert client.recv(64) == b"x"
        return client, tor

    def stream(self) -> None:
        """One from its beginning to its end, which is Tor's first."""
        client, tor = self.open()
        tor.close()
        assert client.recv(64) == b""
        client.close()


def exchange(sock: socket.socket, words: bytes, answer: bytes) -> None:
    sock.sendall(words)
    assert not answer or sock.recv(64) == answer


class Calls:
    """Counts the calls of our functions in this thread."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.count += 1


def run(work: Callable[[FrontEnd, Far], Coroutine[Any, Any, _Result]]) -> _Result:
    """The result of `work` on the loop that stream processes run on."""

    async def prepared() -> _Result:
        with socket.create_server(("127.0.0.1", 0), backlog=STREAMS) as listener:
            listener.settimeout(SECONDS)
            port = SocksPort(endpoint=Endpoint.tcp(*listener.getsockname()))
            async with front_end(port, Fallback.ONION_ONLY) as front:
                far = Far(listener)
                far.front = front.listeners["test"].socket.getsockname()
                await asyncio.to_thread(far.stream)  # what is made once is made by now
                return await work(front, far)

    with asyncio.Runner(loop_factory=ReactorLoop) as runner:
        return runner.run(prepared())


async def calls_of_streams(front: FrontEnd, far: Far) -> list[int]:
    """Of several, one after the other; a timer may have had its turn in some of them."""
    statistics, counts = front.listeners["test"].statistics, []
    for _ in range(5):
        await until(lambda: not statistics.open)
        calls = Calls()
        sys.setprofile(calls)
        try:
            await asyncio.to_thread(far.stream)
            await until(lambda: not statistics.open)
        finally:
            sys.setprofile(None)
        counts.append(calls.count)
    return counts


async def bytes_of_idle_streams(front: FrontEnd, far: Far) -> float:
    def ours() -> int:
        gc.collect()
        taken = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, f"{OURS}/*"), tracemalloc.Filter(True, socket.__file__)]
        )
        return sum(trace.size for trace in taken.traces)

    def opened() -> list[Ends]:
        return [far.open() for _ in range(STREAMS)]

    tracemalloc.start()
    with contextlib.ExitStack() as sockets:
        try:
            before = ours()
            for client, tor in await asyncio.to_thread(opened):
                sockets.enter_context(client)
                sockets.enter_context(tor)
            return (ours() - before) / STREAMS
        finally:
            tracemalloc.stop()


def test_a_stream_calls_no_more_than_it_has_to() -> None:
    assert min(run(calls_of_streams)) <= MOST_CALLS


def test_an_idle_stream_takes_little_memory() -> None:
    taken = run(bytes_of_idle_streams)
    assert 0 < taken <= MOST_BYTES
