"""Sockets that listen: opened, or inherited, and what is no use."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(host: str) -> None:
    with closing(ListeningSocket.open(Endpoint(host, 0), 0)) as listening:
        assert listening.address() == str(Endpoint.tcp(*listening.socket.getsockname()[:2]))
        socket.create_connection(listening.socket.getsockname()[:2]).close()
        assert not listening.is_unix
        assert not listening.lost_its_file
        listening.change_mode(0o600)
        with pytest.raises(OperationError, match="stop the program that uses it"):
            ListeningSocket.open(Endpoint.parse(listening.address()), 0)


def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listening = ListeningSocket.open(Endpoint.unix(str(path)), 0o660)
    assert (listening.is_unix, listening.address()) == (True, f"unix:{path}")
    listening.change_mode(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listening.close()
    listening.close()
    assert not path.exists()


def test_a_file_that_vanished_or_is_another_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    endpoint = Endpoint.unix(str(path))
    old = ListeningSocket.open(endpoint, 0o600)
    lost = [old.lost_its_file]
    path.unlink()
    lost.append(old.lost_its_file)
    with closing(ListeningSocket.open(endpoint, 0o600)):
        lost.append(old.lost_its_file)
        old.close()
        assert path.exists()
    assert lost == [False, True, True]
    assert not path.exists()


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("192.0.2.1:9250", "no interface of this machine has it"),
        ("unix:/nonexistent/socket", "make it, or choose another one"),
    ],
)
def test_the_advice_goes_with_the_reason(address: str, advice: str) -> None:
    with pytest.raises(OperationError, match=advice):
        ListeningSocket.open(Endpoint.parse(address), 0o600)


def test_an_inherited_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    listening = ListeningSocket.inherited(sock, "socks-default")
    assert not listening.lost_its_file
    listening.close()
    assert path.exists()


def test_an_abstract_socket_has_a_printable_name() -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0isoproxy-test-abstract")
    sock.listen()
    with closing(ListeningSocket.inherited(sock, "socks-default")) as listening:
        assert listening.address() == "unix:@isoproxy-test-abstract"


HELD: list[socket.socket] = []


def connected() -> socket.socket:
    near, far = socket.socketpair()
    HELD.append(far)
    return near


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "not a stream socket"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), "not a stream socket"),
        (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), "of no family"),
        (lambda: socket.socket(socket.AF_INET), "does not listen"),
        (connected, "Accept=yes"),
    ],
)
def test_what_cannot_be_listened_at_is_a_sentence(
    make: Callable[[], socket.socket], problem: str
) -> None:
    with make() as sock, pytest.raises(OperationError, match=problem) as caught:
        ListeningSocket.inherited(sock, "socks-default")
    assert "socks-default" in str(caught.value)
    while HELD:
        HELD.pop().close()
