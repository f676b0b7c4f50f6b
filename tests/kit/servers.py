"""Small real servers at the far end of tests: a context manager each, in threads.

They listen on `net.server_ip`, which "*.test" names resolve to at the exits of the private
network; each knows, through `exit_of`, which exit a connection came from.  An exception in
a handler is raised where the server's context ends: no failure is silent.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from tests.kit.tornet import Node

ExitOf = Callable[[socket.socket], Node | None]

_BLOCK: Final = 1 << 16
# What a peer that goes away in the middle does to a handler: nothing to report.
_PEER_GONE: Final = (ConnectionError, TimeoutError, BrokenPipeError, ssl.SSLError)


class Server(socketserver.ThreadingTCPServer):
    """A TCP server with a thread per connection; its end closes what is still open.

    `port` 0 is any free port.  With `tls` it speaks TLS; each handshake is its handler's.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(
        self,
        host: str,
        handler: type[socketserver.BaseRequestHandler],
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ):
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._errors: list[Exception] = []
        self._lock = threading.Lock()
        self.connections = 0
        """How many connections were accepted so far."""
        super().__init__((host, port), handler)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True
        )

    @property
    def host(self) -> str:
        return str(self.server_address[0])

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
            self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, _PEER_GONE):
            with self._lock:
                self._errors.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._errors and raised[0] is None:
            raise self._errors[0]


class EchoServer(Server):
    """Sends back what it gets; ends its side when the client has ended its own."""

    def __init__(self, host: str):
        super().__init__(host, _Echo)


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(_BLOCK):
            self.request.sendall(data)


class SourceServer(Server):
    """Bytes on demand: 8 bytes, a big-endian count, are answered with so many zero bytes."""

    def __init__(self, host: str):
        super().__init__(host, _Source)


class _Source(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = self.rfile.read(8)
        if len(request) < 8:
            return
        (left,) = struct.unpack(">Q", request)
        block = bytes(_BLOCK)
        while left:
            self.wfile.write(block[:left])
            left -= min(left, _BLOCK)


class SinkServer(Server):
    """Upload, end your side, then read the answer: 8 bytes of count, 32 of SHA-256."""

    def __init__(self, host: str):
        super().__init__(host, _Sink)


class _Sink(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        count, digest = 0, hashlib.sha256()
        while data := self.request.recv(_BLOCK):
            count += len(data)
            digest.update(data)
        self.request.sendall(struct.pack(">Q", count) + digest.digest())


class WebServer(Server):
    """HTTP/1.1: "/" names the exit and echoes "host" and "path"; below `files`, files.

    /            text: "exit=<nickname> host=<Host header> path=<path>"; exit "none" where
                 the connection does not come from a relay.  An onion service's comes from
                 the tor that publishes it
    /bytes/N     N zero bytes
    /files/...   what is in the directory `files`, as a dumb git client wants it
    Every answer carries the header X-Exit.  `requests` lists (exit, method, path),
    `local_addresses` the address that each request came in at.
    """

    def __init__(
        self,
        host: str,
        exit_of: ExitOf | None = None,
        files: Path | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ):
        self.exit_of = exit_of
        self.files = files.resolve() if files else None
        self.requests: list[tuple[str, str, str]] = []
        self.local_addresses: list[str] = []
        super().__init__(host, _Web, port, tls)

    def url(self, path: str = "/", name: str | None = None) -> str:
        """ "http://name:port/path", or https; without a name, the address."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{name or self.host}:{self.port}{path}"


class _Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error: `requests` has it all."""

    def _answer(self, *, body: bool) -> None:
        node = self.server.exit_of(self.connection) if self.server.exit_of else None
        exit_name = node.name if node else "none"
        self.server.requests.append((exit_name, self.command, self.path))
        self.server.local_addresses.append(self.connection.getsockname()[0])
        status, content = self._content(exit_name)
        self.send_response(status)
        self.send_header("X-Exit", exit_name)
        kind = "text/plain" if self.path == "/" else "application/octet-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _content(self, exit_name: str) -> tuple[int, bytes]:
        path = self.path.partition("?")[0]
        if path.startswith("/bytes/") and path[7:].isdecimal():
            return 200, bytes(int(path[7:]))
        if path.startswith("/files/"):
            return self._file(path[7:])
        host = self.headers.get("Host", "")
        return 200, f"exit={exit_name} host={host} path={self.path}\n".encode()

    def _file(self, name: str) -> tuple[int, bytes]:
        root = self.server.files
        if root is None:
            return 404, b""
        wanted = (root / name).resolve()
        if not wanted.is_relative_to(root) or not wanted.is_file():
            return 404, b""
        return 200, wanted.read_bytes()


def git_repository(directory: Path) -> None:
    """Make a repository of one commit, ready for dumb HTTP: clone ".../.git"."""
    directory.mkdir()
    (directory / "README").write_text("hello\n")
    for arguments in (
        ("init", "-q"),
        ("add", "README"),
        ("-c", "user.name=t", "-c", "user.email=t@example.test", "commit", "-q", "-m", "One"),
        ("update-server-info",),
    ):
        subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True)


@contextlib.contextmanager
def closed_port(host: str) -> Iterator[int]:
    """A port that refuses connections for as long as the context lasts.

    It is bound, so nobody else can take it, and nobody listens on it.
    """
    with socket.socket() as reserved:
        reserved.bind((host, 0))
        yield int(reserved.getsockname()[1])
