"""One way between two sockets: what is held, when it rests, and what a broken sink means."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from isoproxy.front.direction import COPY_LIMIT, Direction
from isoproxy.front.pipes import PipePool
from tests.kit.stream_conformance import unix_pair

Way = tuple[socket.socket, Direction, socket.socket]


@pytest.fixture
def pipes() -> Iterator[PipePool]:
    pool = PipePool(1 << 16, 2)
    yield pool
    assert pool.lent == 0
    pool.close()


@pytest.fixture
def way() -> Iterator[Way]:
    """A far end that speaks, the direction, and a far end that is spoken to."""
    (speaker, source), (sink, listener) = unix_pair(), unix_pair()
    with speaker, source, sink, listener:
        yield speaker, Direction(source, sink, readable=False, ending=False), listener


def test_a_message_to_one_at_rest_is_copied_at_once(way: Way) -> None:
    speaker, direction, listener = way
    assert direction.at_rest
    speaker.send(b"message")
    assert direction.copy_once()
    assert listener.recv(99) == b"message"
    assert direction.at_rest
    assert direction.copy_once(), "an event that came for nothing"


def test_what_the_sink_does_not_take_is_kept_and_nothing_more_is_read(
    way: Way, pipes: PipePool
) -> None:
    speaker, direction, listener = way
    direction.sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = os.urandom(60_000)
    assert speaker.send(data) == len(data)
    direction.readable = True
    direction.forward(pipes, last=False)
    assert (direction.idle, bool(direction.pending)) == (True, True)
    got = b""
    while len(got) < len(data):
        got += listener.recv(1 << 16)
        direction.writable = True
        direction.forward(pipes, last=False)
    assert got == data
    assert direction.moved == len(data)


def test_after_the_limit_it_splices_and_gives_the_pipe_back(way: Way, pipes: PipePool) -> None:
    speaker, direction, listener = way
    direction.moved = COPY_LIMIT
    speaker.send(b"by splice")
    direction.readable = True
    direction.forward(pipes, last=False)
    assert listener.recv(99) == b"by splice"
    assert direction.spliced == 9


def test_the_end_is_a_shutdown_of_the_sink_unless_both_are_about_to_close(
    way: Way, pipes: PipePool
) -> None:
    speaker, direction, listener = way
    speaker.shutdown(socket.SHUT_WR)
    direction.readable = True
    direction.forward(pipes, last=True)
    assert direction.ended
    with pytest.raises(BlockingIOError):
        listener.recv(1)
    direction.ended = False
    direction.forward(pipes, last=False)
    assert listener.recv(1) == b""


@pytest.mark.parametrize("drain", [False, True])
def test_a_broken_sink_ends_it_or_has_its_source_read_to_the_end(
    way: Way, pipes: PipePool, drain: bool
) -> None:
    speaker, direction, listener = way
    direction.drain_source = drain
    listener.close()
    speaker.send(b"nobody is left")
    direction.readable = True
    direction.forward(pipes, last=False)
    assert (direction.ended, direction.discarding) == (not drain, drain)
    if drain:
        direction.forward(pipes, last=False)
        speaker.shutdown(socket.SHUT_WR)
        direction.forward(pipes, last=False)
        assert (direction.ended, direction.moved) == (True, 0)
