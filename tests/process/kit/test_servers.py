"""The small servers of the kit, over plain loopback."""

from __future__ import annotations

import hashlib
import socket
import socketserver
import struct
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.kit.dial import receive_exactly
from tests.kit.servers import (
    EchoServer,
    Server,
    SinkServer,
    SourceServer,
    WebServer,
    closed_port,
    git_repository,
)


def _connect(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=10)


def test_echo_and_its_half_close() -> None:
    with EchoServer("127.0.0.1") as server, _connect(server) as connection:
        connection.sendall(b"one")
        assert receive_exactly(connection, 3) == b"one"
        connection.sendall(b"two")
        connection.shutdown(socket.SHUT_WR)
        assert receive_exactly(connection, 3) == b"two"
        assert connection.recv(1) == b""
        assert server.connections == 1


@pytest.mark.parametrize("size", [0, 1, 65536, 300_001])
def test_source_sends_exactly_what_was_asked_for(size: int) -> None:
    with SourceServer("127.0.0.1") as server, _connect(server) as connection:
        connection.sendall(struct.pack(">Q", size))
        assert receive_exactly(connection, size) == bytes(size)
        assert connection.recv(1) == b""


def test_sink_answers_after_the_upload_has_ended() -> None:
    data = bytes(range(256)) * 1000
    with SinkServer("127.0.0.1") as server, _connect(server) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert receive_exactly(connection, 8) == struct.pack(">Q", len(data))
        assert receive_exactly(connection, 32) == hashlib.sha256(data).digest()


def test_web_answers(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"content")
    with WebServer("127.0.0.1", files=tmp_path) as web:
        with urllib.request.urlopen(web.url("/some/path?q=1"), timeout=10) as answer:
            assert answer.headers["X-Exit"] == "none"
            text = f"exit=none host=127.0.0.1:{web.port} path=/some/path?q=1\n"
            assert answer.read() == text.encode()
        with urllib.request.urlopen(web.url("/bytes/100000"), timeout=10) as answer:
            assert answer.read() == bytes(100_000)
        with urllib.request.urlopen(web.url("/files/page"), timeout=10) as answer:
            assert answer.read() == b"content"
        assert web.requests[-1] == ("none", "GET", "/files/page")
        assert web.local_addresses[-1] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/files/../secret", "/files/none", "/files/%2e%2e/secret"])
def test_web_serves_nothing_outside_its_directory(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "public").mkdir()
    with (
        WebServer("127.0.0.1", files=tmp_path / "public") as web,
        pytest.raises(urllib.error.HTTPError, match="404") as refusal,
    ):
        urllib.request.urlopen(web.url(path), timeout=10)
    refusal.value.close()


def test_git_clones_from_the_web_server(tmp_path: Path) -> None:
    source = tmp_path / "source"
    git_repository(source)
    with WebServer("127.0.0.1", files=tmp_path) as web:
        clone = ["git", "clone", "-q", web.url("/files/source/.git"), str(tmp_path / "clone")]
        subprocess.run(clone, check=True, capture_output=True, timeout=30)
    assert (tmp_path / "clone" / "README").read_text() == "hello\n"


def test_a_failing_handler_is_reported_where_the_context_ends() -> None:
    class Broken(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            raise ZeroDivisionError("as intended")

    with (
        pytest.raises(ZeroDivisionError, match="as intended"),
        Server("127.0.0.1", Broken) as server,
        _connect(server) as connection,
    ):
        assert connection.recv(1) == b""


def test_open_connections_end_with_the_server() -> None:
    with EchoServer("127.0.0.1") as server:
        connection = _connect(server)
        connection.sendall(b"x")
        receive_exactly(connection, 1)
    with connection:
        assert connection.recv(1) == b""


def test_a_closed_port_refuses() -> None:
    with closed_port("127.0.0.1") as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
