"""One question to what listens at a path, whatever that is."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path

import pytest

from isoproxy.admin.client import NotRunning, ask
from isoproxy.errors import OperationError


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="start it with: isoproxy run"):
        ask(tmp_path / "admin", "status")


@pytest.mark.parametrize("answer", [b"hello\n", b"", b"[]\n"])
def test_something_else_there(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "admin"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def serve() -> None:
            client, _ = sock.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(OperationError):
            ask(path, "status")
        thread.join()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "does not answer"),
        (PermissionError(errno.EACCES, "no"), "ask as the user that isoproxy runs as"),
        (ConnectionResetError(errno.ECONNRESET, "gone"), "hung up"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "File name too long"),
    ],
)
def test_what_is_in_the_way_is_told(
    error: OSError, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(self: socket.socket, address: str) -> None:
        raise error

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(OperationError, match=told):
        ask(tmp_path / "admin", "status")
