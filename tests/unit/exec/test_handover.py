"""Sockets from one process to another, and the words with them."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import OperationError
from isoproxy.exec.handover import (
    MAX_REQUEST,
    Request,
    connect,
    exec_address,
    give_sockets,
    received,
)


@given(st.none() | st.text(max_size=200), st.integers(0, 9))
def test_a_request_is_what_was_written(isolation: str | None, listeners: int) -> None:
    request = Request(isolation, listeners)
    assert Request.decode(request.encode()) == request
    assert request.encode().count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{}", b'{"isolation": 1, "listeners": 1}', b'{"listeners": true}', b"\xff"],
)
def test_what_is_no_request_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of any kind
        Request.decode(line)


def test_an_id_that_is_too_long_is_said_to_be() -> None:
    with pytest.raises(OperationError, match="too long"):
        Request("x" * MAX_REQUEST, 1).encode()


def test_it_is_beside_the_admin_socket() -> None:
    assert exec_address(Path("/run/isoproxy/admin")) == Path("/run/isoproxy/admin.exec")


def answered(answer: bytes) -> list[str]:
    """What the command makes of an answer; the sockets have arrived."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        came: list[str] = []

        def serve() -> None:
            line, sockets = received(theirs)
            assert Request.decode(line) == Request("id", 1)
            came.extend(str(sock.getsockname()) for sock in sockets)
            for sock in sockets:
                sock.close()
            theirs.sendall(answer)
            theirs.shutdown(socket.SHUT_WR)

        server = threading.Thread(target=serve)
        server.start()
        try:
            return give_sockets(ours, Request("id", 1), [listener])
        finally:
            server.join()
            assert came == [str(listener.getsockname())]


def test_the_answer_is_what_is_to_be_hidden() -> None:
    assert answered(json.dumps({"hide": ["/a", "/b"]}).encode() + b"\n") == ["/a", "/b"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"error": "too many"}\n', "too many"),
        (b"", "hung up"),
        (b"[]\n", "hung up"),
        (b"nonsense\n", "does not answer"),
    ],
)
def test_why_there_is_no_way_in_is_said(answer: bytes, said: str) -> None:
    with pytest.raises(OperationError, match=said):
        answered(answer)


def test_nobody_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="start it with"):
        connect(tmp_path / "admin.exec")
    with pytest.raises(OperationError, match="the user that isoproxy runs as"):
        connect(tmp_path / ("x" * 200))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_no_socket_or_too_much_is_closed() -> None:
    one, two = socket.socketpair()
    with one, two, open(os.devnull) as file:
        before = descriptors()
        for numbers in ([file.fileno(), one.fileno()], [one.fileno()] * 20):
            rights = array.array("i", numbers)
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            _, sockets = received(two)
            assert len(sockets) == (1 if len(numbers) == 2 else 0)
            for sock in sockets:
                sock.close()
        assert descriptors() == before
