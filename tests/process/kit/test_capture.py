"""The capture gives back what was said, byte for byte, and only what its filter passes."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from tests.kit.capture import capture, may_capture

pytestmark = pytest.mark.skipif(
    not may_capture(), reason="a packet capture needs root or CAP_NET_RAW"
)
SERVER = "127.31.7.1"


def _say(words: bytes, there: tuple[str, int]) -> None:
    with socket.create_connection(there) as sock:
        sock.sendall(words)


def test_a_long_conversation_is_put_together() -> None:
    words = os.urandom(1_000_000)
    with socket.create_server((SERVER, 0)) as server, capture(f"net {SERVER}") as captured:
        there = server.getsockname()
        speaker = threading.Thread(target=_say, args=(words, there))
        speaker.start()
        accepted, _ = server.accept()
        with accepted:
            while accepted.recv(65536):
                pass
        speaker.join()
    assert captured.to(there) == [words]
    assert len(captured.streams) == 1


def test_other_packets_are_left_out() -> None:
    with (
        socket.create_server((SERVER, 0)) as server,
        socket.create_server((SERVER, 0)) as other,
        capture(f"port {server.getsockname()[1]}") as captured,
    ):
        for listening in (server, other):
            _say(b"hello", listening.getsockname())
    assert list(captured.streams.values()) == [b"hello"]


def test_a_rule_that_tcpdump_does_not_know_is_shown() -> None:
    with pytest.raises(AssertionError, match="syntax error"), capture("nonsense nonsense"):
        pass
