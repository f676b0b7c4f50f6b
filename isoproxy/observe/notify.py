"""What systemd is told, and the sockets it hands over (sd_notify(3), sd_listen_fds(3)).

Without systemd every call does nothing.  The watchdog is fed from the event loop itself:
when the loop hangs, systemd notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

from isoproxy.errors import OperationError

_FIRST_INHERITED: Final = 3
_MAX_INHERITED: Final = 64


class Notifier:
    """Speaks to the service manager that started us, if one did."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._timer: asyncio.TimerHandle | None = None
        self.watchdog_s = _watchdog_s(environment)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`; it must not identify anybody's activity."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload began; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def start_watchdog(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report life at half of the period that the manager asks for."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")
            self._timer = loop.call_later(self.watchdog_s / 2, self.start_watchdog, loop)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, message: str) -> None:
        if not self._address.startswith(("/", "\0")):
            return
        # a manager that does not listen is no reason to stop serving
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, _DATAGRAM) as sock:
            sock.sendto(message.encode(), self._address)


_DATAGRAM: Final = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "") or str(os.getpid())
    if not microseconds.isdigit() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6


def inherited_sockets(
    environment: MutableMapping[str, str] = os.environ,
    *,
    first: int = _FIRST_INHERITED,
) -> dict[str, list[socket.socket]]:
    """The listening sockets of socket activation by their `FileDescriptorName`.

    They are taken over: the variables are removed, so that no child believes in them.
    Raises OperationError for a descriptor that is no socket.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit() or int(count) > _MAX_INHERITED:
        return {}
    sockets: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        name = names[index] if index < len(names) else "unknown"
        try:
            inherited = socket.socket(fileno=first + index)
        except OSError as error:
            raise OperationError(
                f"descriptor {first + index}, which the service manager handed over as {name}, is "
                f"no socket ({error.strerror}); its unit needs ListenStream="
            ) from None
        inherited.setblocking(False)
        os.set_inheritable(inherited.fileno(), False)
        sockets.setdefault(name, []).append(inherited)
    return sockets
