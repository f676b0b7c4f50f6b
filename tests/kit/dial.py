"""A blocking SOCKS5 client for tests (RFC 1928, 1929): any bytes, nothing checked or mended.

Known clients cannot send every user name: PySocks encodes its length and text as UTF-8.
"""

from __future__ import annotations

import socket

from tests.kit.tornet import Address


class Refused(Exception):
    """The proxy said no; `reply` is its reply code, None for a refused log-in."""

    def __init__(self, what: str, reply: int | None = None):
        super().__init__(what)
        self.reply = reply


def dial(
    proxy: Address,
    host: str | bytes,
    port: int,
    *,
    user: bytes | None = None,
    password: bytes = b"",
    source: str = "",
    timeout: float = 60.0,
) -> socket.socket:
    """A connected socket; `host` goes out as a name, whatever it looks like.

    `user` None: no authentication is offered.  `source`: the address to connect from.
    Raises Refused, or ConnectionError if the proxy hangs up.
    """
    connection = socket.socket(socket.AF_UNIX if isinstance(proxy, str) else socket.AF_INET)
    try:
        connection.settimeout(timeout)
        if source:
            connection.bind((source, 0))
        connection.connect(proxy)
        _log_in(connection, user, password)
        name = host.encode() if isinstance(host, str) else host
        request = b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big")
        connection.sendall(request)
        _, reply, _, family = receive_exactly(connection, 4)
        receive_exactly(connection, {1: 6, 4: 18}[family])
        if reply:
            raise Refused(f"SOCKS reply {reply}", reply)
    except BaseException:
        connection.close()
        raise
    return connection


def _log_in(connection: socket.socket, user: bytes | None, password: bytes) -> None:
    method = 0 if user is None else 2
    connection.sendall(bytes([5, 1, method]))
    if receive_exactly(connection, 2) != bytes([5, method]):
        raise Refused("the proxy does not take this method of authentication")
    if user is not None:
        message = bytes([1, len(user)]) + user + bytes([len(password)]) + password
        connection.sendall(message)
        if receive_exactly(connection, 2)[1]:
            raise Refused("the proxy did not accept user name and password")


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes; ConnectionError if the other side ends before."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError(f"connection closed after {len(data)} of {count} bytes")
        data += more
    return data
