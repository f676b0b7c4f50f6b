"""Unix sockets: who is at the other end, their files, and the modes of those (unix(7)).

Theory of operation
    A unix socket that listens has a file, which outlives it if its process ends hard.
    `listen` takes the place of such a stale file and of nothing else: a file is stale if a
    connection to it is refused.  A listener whose backlog is full, a socket of another kind
    and one that we may not connect to are in use.

    A file's identity is its device and inode, as it was made.  The file of a socket is
    removed with the socket only if it still is that one: another process may have put its
    own in its place meanwhile.

Invariants
    No client can connect before the file has its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

BACKLOG: Final = 1024
_ROOT: Final = 0
_CREDENTIALS: Final = struct.Struct("3i")
_PROBE_S: Final = 1.0


class PeerCredentials(NamedTuple):
    """The process, user and group at the other end when it connected (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Of a connected unix socket, as the kernel has them; raises OSError."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return PeerCredentials(*_CREDENTIALS.unpack(raw))


def trusted_users() -> frozenset[int]:
    """The user IDs that may command us: root's, and that of the user we run as."""
    return frozenset({_ROOT, os.geteuid()})


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a socket that was bound to `path`."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, path: str) -> SocketFile:
        """The one that is at `path` now; raises OSError."""
        status = os.lstat(path)
        return cls(path, status.st_dev, status.st_ino)

    @property
    def is_there(self) -> bool:
        """Whether it still is what `path` leads to."""
        try:
            return SocketFile.of(self.path) == self
        except OSError:
            return False

    def change_mode(self, mode: int) -> None:
        """Give it other permissions; raises OSError, also if it is not there any more."""
        if not self.is_there:
            raise FileNotFoundError(errno.ENOENT, "something else is in its place")
        os.chmod(self.path, mode)

    def remove(self) -> None:
        """Remove it, if it is there."""
        if self.is_there:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def listen(path: str, mode: int) -> tuple[socket.socket, SocketFile]:
    """A listening, non-blocking socket whose file has `mode`.

    Raises OSError: EADDRINUSE where something is there that is not stale.
    """
    remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        before = os.umask(0o177)  # the file is born closed
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        file = SocketFile.of(path)
        sock.listen(BACKLOG)
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock, file


def remove_stale(path: str) -> None:
    """Remove the file of a socket at which no process listens any more; OSError if it is in use.

    A file that is no socket refuses connections as well, and stays.
    """
    try:
        file, is_socket = SocketFile.of(path), stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EADDRINUSE, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            file.remove()
        except FileNotFoundError:
            return
        except OSError as error:
            problem = f"a socket is in use there ({error.strerror})"
            raise OSError(errno.EADDRINUSE, problem) from None
        else:
            raise OSError(errno.EADDRINUSE, "another program listens there")
