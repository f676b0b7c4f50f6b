"""Which process holds the other end of a loopback connection: what /proc knows."""

from __future__ import annotations

import os
import socket
import struct


def _proc_address(ip: str, port: int) -> str:
    """An address as /proc/net/tcp and tcp6 write it: words in this machine's byte order."""
    raw = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def peer_inode(connection: socket.socket) -> str | None:
    """The inode of the socket at the other end of an open TCP connection on this machine."""
    here, there = connection.getsockname(), connection.getpeername()
    wanted = [_proc_address(there[0], there[1]), _proc_address(here[0], here[1])]
    table = "/proc/net/tcp6" if connection.family == socket.AF_INET6 else "/proc/net/tcp"
    with open(table) as file:
        return next((row[9] for row in map(str.split, file) if row[1:3] == wanted), None)


def holds(pid: int, inode: str) -> bool:
    """Whether a process has the socket with this inode open."""
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            if os.readlink(f"{directory}/{descriptor}") == f"socket:[{inode}]":
                return True
        except OSError:
            continue
    return False
