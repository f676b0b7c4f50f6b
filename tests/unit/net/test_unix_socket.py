"""Unix sockets' files: what may be replaced, what may be removed, and who is at the other end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from isoproxy.net.unix_socket import (
    SocketFile,
    listen,
    peer_credentials,
    remove_stale,
    trusted_users,
)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_socket_listens_and_its_file_has_the_mode(tmp_path: Path) -> None:
    sock, file = listen(str(tmp_path / "s"), 0o640)
    with sock:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o640
        assert connects(tmp_path / "s")
        assert not sock.getblocking()
        assert file.is_there
    file.remove()
    assert not (tmp_path / "s").exists()


def test_at_no_moment_is_a_socket_more_open_than_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connected between bind and chmod would be served."""
    path, chmod = tmp_path / "s", os.chmod
    born: list[int] = []

    def changing(file: str, mode: int) -> None:
        born.append(stat.S_IMODE(path.stat().st_mode))
        chmod(file, mode)

    monkeypatch.setattr(os, "chmod", changing)
    sock, file = listen(str(path), 0o660)
    sock.close()
    file.remove()
    assert born == [0o600]


def test_the_other_end_is_this_process(tmp_path: Path) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert peer_credentials(near) == (os.getpid(), os.getuid(), os.getgid())


def stale(path: Path, held: ExitStack) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


def listening(path: Path, held: ExitStack) -> None:
    sock = held.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(path))
    sock.listen()


def full_backlog(path: Path, held: ExitStack) -> None:
    sock = held.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(path))
    sock.listen(0)
    for _ in range(3):
        client = held.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        client.connect_ex(str(path))


def datagram(path: Path, held: ExitStack) -> None:
    held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(path))


def sequential(path: Path, held: ExitStack) -> None:
    sock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    sock.bind(str(path))
    sock.listen()


def plain_file(path: Path, held: ExitStack) -> None:
    path.write_text("the key of an onion service")


@pytest.mark.parametrize("made", [listening, full_backlog, datagram, sequential, plain_file])
def test_only_what_refuses_connections_is_stale(
    made: Callable[[Path, ExitStack], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoproxy.net.unix_socket._PROBE_S", 0.1)
    path = tmp_path / "s"
    with ExitStack() as held:
        made(path, held)
        before = SocketFile.of(str(path))
        with pytest.raises(OSError, match=r"there") as caught:
            listen(str(path), 0o600)
        assert caught.value.errno == errno.EADDRINUSE
        assert before.is_there


def test_a_socket_that_we_may_not_connect_to_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale(tmp_path / "s", ExitStack())

    def connect(self: socket.socket, address: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", connect)
        with pytest.raises(OSError, match="Permission denied"):
            remove_stale(str(tmp_path / "s"))
    assert (tmp_path / "s").exists()


def test_what_is_stale_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale(path, ExitStack())
    sock, _ = listen(str(path), 0o600)
    with sock:
        assert connects(path)
    remove_stale(str(tmp_path / "never"))


def test_the_file_of_another_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    old, file = listen(str(path), 0o600)
    with old:
        path.unlink()
        new, _ = listen(str(path), 0o600)
        with new:
            assert not file.is_there
            file.remove()
            assert connects(path)
            with pytest.raises(FileNotFoundError):
                file.change_mode(0o666)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_mode_is_changed(tmp_path: Path) -> None:
    sock, file = listen(str(tmp_path / "s"), 0o600)
    with sock:
        file.change_mode(0o660)
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660


def test_root_and_we_ourselves_may_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert trusted_users() == {0, 1234}
