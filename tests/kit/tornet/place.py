"""Where a network lives: a directory and a /24 of loopback addresses, each its own.

Both are held by the kernel (a file lock, a bound socket), so they are free again the
moment their process ends, however it ends; a directory that nobody holds any more is
removed by the next network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

from tests.kit.tornet.control import TorNetError

_PREFIX: Final = "isoproxy-tornet-"
_LOCK: Final = "lock"
# Below 127.192.0.0/10, tor's default VirtualAddrNetworkIPv4: a client refuses to connect
# to addresses in there that it did not map itself.
_SECOND_BYTE: Final = range(10, 190)
_THIRD_BYTE: Final = range(1, 250)
_HELD_PORT: Final = 9001


class Place:
    """A directory (mode 0700) and a subnet "127.x.y"; `release` gives both back."""

    def __init__(self, parent: str | None = None, *, keep: bool = False):
        self._keep = keep
        _sweep(Path(parent or tempfile.gettempdir()))
        self.dir = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = _locked(self.dir)
        self.subnet, self._socket = _free_subnet()

    def address(self, last_byte: int) -> str:
        return f"{self.subnet}.{last_byte}"

    def release(self) -> None:
        self._socket.close()
        if self._keep:
            (self.dir / _LOCK).unlink()
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        os.close(self._lock)


def _locked(directory: Path) -> int:
    """The lock shows up under its name only once it is held: no moment to be swept in."""
    new = directory / (_LOCK + ".new")
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(directory / _LOCK)
    return descriptor


def _sweep(parent: Path) -> None:
    """Remove the directories of networks whose process was killed."""
    for directory in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(directory / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)


def _free_subnet() -> tuple[str, socket.socket]:
    for _ in range(50):
        subnet = f"127.{random.choice(_SECOND_BYTE)}.{random.choice(_THIRD_BYTE)}"
        held = socket.socket()
        try:
            held.bind((f"{subnet}.254", _HELD_PORT))
        except OSError:
            held.close()
            continue
        return subnet, held
    raise TorNetError("no free loopback subnet in 127.10.0.0 to 127.189.0.0")
