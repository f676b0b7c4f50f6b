"""Where the kernel says that a connection was going; one that was redirected is in
tests/process/bitcoin/test_redirect.py."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from isoproxy.net.original_destination import original_destination, parse_sockaddr


def test_addresses_as_the_kernel_writes_them() -> None:
    v4 = struct.pack("=H", socket.AF_INET) + b"\x20\x8d" + bytes([1, 2, 3, 4]) + bytes(8)
    assert parse_sockaddr(v4) == (IPv4Address("1.2.3.4"), 8333)
    host = IPv6Address("2001:db8::1")
    v6 = struct.pack("=H", socket.AF_INET6) + b"\x20\x8d" + bytes(4) + host.packed + bytes(4)
    assert parse_sockaddr(v6) == (host, 8333)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_direct_connection_was_not_redirected(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted, _ = server.accept()
        with accepted, client:
            assert original_destination(accepted) is None


def test_a_unix_socket_was_not_redirected() -> None:
    one, two = socket.socketpair()
    with one, two:
        assert original_destination(one) is None
