"""Sockets that listen: opened at an endpoint, or inherited from a service manager.

Invariants
    A unix socket's file goes with the socket, unless another one is in its place by now, or
    the socket was inherited: then the file is the service manager's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Final

from isoproxy.errors import OperationError
from isoproxy.net import unix_socket
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.unix_socket import BACKLOG, SocketFile

_ADVICE: Final = {
    errno.EADDRINUSE: "stop the program that uses it, or choose another address",
    errno.EADDRNOTAVAIL: "no interface of this machine has it (yet); choose one that it has",
    errno.EACCES: "this user may not; choose another directory, or a port from 1024 on",
    errno.ENOENT: "its directory has to be there before; make it, or choose another one",
}


class ListeningSocket:
    """A socket that listens; `file` is that of a unix socket of our own."""

    def __init__(self, sock: socket.socket, file: SocketFile | None = None) -> None:
        self.socket: Final = sock
        self.file: Final = file

    @classmethod
    def open(cls, endpoint: Endpoint, mode: int) -> ListeningSocket:
        """At `endpoint`; a unix socket's file has `mode`.  OperationError says why not."""
        try:
            if endpoint.path is not None:
                return cls(*unix_socket.listen(endpoint.path, mode))
            return cls(_listen_tcp(endpoint))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            advice = _ADVICE.get(error.errno or 0, "choose another address")
            raise OperationError(f"cannot listen on {endpoint}: {reason}; {advice}") from error

    @classmethod
    def inherited(cls, sock: socket.socket, name: str) -> ListeningSocket:
        """A socket that a service manager handed over as `name`.

        Raises OperationError if clients cannot be accepted on it.
        """
        try:
            problem = _why_not(sock)
        except OSError as error:
            problem = str(error.strerror)
        if problem is not None:
            raise OperationError(
                f"the inherited socket {name} is no use: {problem}; its unit needs "
                "ListenStream= with a port or a path"
            )
        sock.setblocking(False)
        return cls(sock)

    @property
    def is_unix(self) -> bool:
        return self.socket.family == socket.AF_UNIX

    @property
    def lost_its_file(self) -> bool:
        """Whether no client finds it any more, because its file is gone or another's."""
        return self.file is not None and not self.file.is_there

    def address(self) -> str:
        """Where it listens: `host:port` or `unix:path`; it is open."""
        name = self.socket.getsockname()
        return f"unix:{_printable(name)}" if self.is_unix else str(Endpoint.tcp(*name[:2]))

    def change_mode(self, mode: int) -> None:
        """Give the file of a unix socket of ours other permissions; OperationError if not."""
        if self.file is None:
            return
        try:
            self.file.change_mode(mode)
        except OSError as error:
            raise OperationError(
                f"the mode of unix:{self.file.path} cannot be changed: {error.strerror}; restart "
                "isoproxy, which makes the socket anew"
            ) from None

    def close(self) -> None:
        """Stop listening, as far as this process is concerned; a second call does nothing."""
        if self.socket.fileno() >= 0 and self.file is not None:
            self.file.remove()
        self.socket.close()


def _listen_tcp(endpoint: Endpoint) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(endpoint.address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _why_not(sock: socket.socket) -> str | None:
    """What keeps clients from being accepted on a socket, if anything; raises OSError."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return "it is of no family that clients come by"
    if sock.type != socket.SOCK_STREAM:
        return "it is not a stream socket"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        with contextlib.suppress(OSError):
            sock.getpeername()
            return "it is a connection, with Accept=yes"
        return "it does not listen"
    return None


def _printable(name: str | bytes) -> str:
    """A unix socket's name; an abstract one, which begins with NUL, as ss(8) shows it."""
    text = os.fsdecode(name)
    return "@" + text[1:] if text.startswith("\0") else text
