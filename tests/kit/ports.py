"""Ports for programs that must be told one before they start.

Port 0 is better wherever a program says what it got.  Where it does not, a port found free
may be taken before the program has it: the kernel gives ports from its ephemeral range to
whoever connects.  So these come from below that range, free for TCP and UDP alike.
"""

from __future__ import annotations

import random
import socket
from typing import Final

_RANGE: Final = range(10_000, 32_000)
_TRIES: Final = 100


def free_port(host: str = "127.0.0.1") -> int:
    """A port at which `host` listens neither over TCP nor over UDP."""
    for port in random.SystemRandom().sample(_RANGE, _TRIES):
        try:
            with (
                socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
            ):
                stream.bind((host, port))
                datagram.bind((host, port))
        except OSError:
            continue
        return port
    raise AssertionError(f"none of {_TRIES} ports is free")
