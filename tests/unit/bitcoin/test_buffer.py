"""ByteQueue: what goes in comes out, memory grows with what has arrived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isoproxy.bitcoin.buffer import AHEAD, READ, ByteQueue


@given(st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 300)), max_size=60))
def test_is_a_queue(steps: list[bytes | int]) -> None:
    queue, model = ByteQueue(), b""
    for step in steps:
        if isinstance(step, bytes):
            queue.append(step)
            model += step
        else:
            size = min(step, len(model))
            assert bytes(queue.peek()[:size]) == model[:size]
            queue.drop(size)
            model = model[size:]
        assert bytes(queue.peek()) == model
        assert len(queue) == len(model)
    assert queue.take() == model
    assert not len(queue)


@given(st.lists(st.integers(1, 5000), max_size=60))
def test_receiving_in_place(sizes: list[int]) -> None:
    queue, model = ByteQueue(), bytearray()
    for number, size in enumerate(sizes):
        room = queue.space()
        assert len(room) >= READ
        room[:size] = bytes([number % 256]) * size
        queue.added(size)
        model += bytes([number % 256]) * size
        queue.drop(size // 2)
        del model[: size // 2]
    assert bytes(queue.peek()) == model


def test_room_for_an_announced_packet_grows_with_what_arrived() -> None:
    queue = ByteQueue()
    queue.append(b"x" * 10)
    queue.expect(16_000_000)
    assert len(queue.space()) == AHEAD
    arrived = 10
    while arrived < 16_000_000:
        queue.expect(16_000_000)
        room = queue.space()
        assert len(room) <= max(arrived, AHEAD)
        assert len(queue.data) <= 4 * max(arrived, AHEAD)
        queue.added(min(len(room), 16_000_000 - arrived))
        arrived = len(queue)


def test_small_packets_keep_the_block_small() -> None:
    queue = ByteQueue()
    for _ in range(1000):
        queue.space()[:3] = b"abc"
        queue.added(3)
        queue.drop(3)
    assert len(queue.data) == READ


def test_trim_gives_memory_back_only_when_empty() -> None:
    queue = ByteQueue()
    queue.append(b"abc")
    queue.trim()
    assert queue.take() == b"abc"
    queue.trim()
    assert len(queue.data) == 0
    queue.append(b"more")
    assert queue.take() == b"more"


def test_the_beginning_of_a_packet_is_moved_once_and_early() -> None:
    queue = ByteQueue()
    size = 3 * AHEAD
    queue.append(bytes(size))  # an earlier packet made it this large
    queue.drop(size - 100)
    queue.expect(size - READ)
    queue.space()
    assert (queue.start, queue.end) == (0, 100)
    queue.added(AHEAD)
    before = queue.data
    queue.expect(size - READ)
    queue.space()
    assert (queue.start, queue.data is before) == (0, True)
