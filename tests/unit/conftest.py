"""A unit test stays inside its process: it starts no program and calls no other machine.

Python announces both to its audit hooks before it does them.  Between a test's beginning
and end the hook below refuses them, and the test fails even where what it tests survived
the refusal.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from typing import Final

import pytest

_STARTS: Final = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
    | {"pty.spawn", "subprocess.Popen"}
)
_LOOKS_UP: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
_CALLS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


class OutsideTheUnitTier(RuntimeError):
    """What a unit test may not do."""


class Gate:
    """The audit hook.  `seen` is None between tests, and what was refused during one."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.seen is None:
            return
        if (
            event in _STARTS
            or (event in _LOOKS_UP and not _is_here(arguments[0]))
            or (event in _CALLS and not _is_ours(arguments[1]))
        ):
            refused = f"{event} {arguments[:2]}"
            self.seen.append(refused)
            raise OutsideTheUnitTier(refused)


def _is_ours(address: object) -> bool:
    """Whether a socket's address is a unix socket, or absent, or of this machine."""
    return not isinstance(address, tuple) or _is_here(address[0])


def _is_here(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


_gate: Final = Gate()
sys.addaudithook(_gate.hook)


@pytest.fixture(autouse=True)
def _inside_the_process() -> Iterator[None]:
    _gate.seen = []
    yield
    seen, _gate.seen = _gate.seen, None
    if seen:
        pytest.fail(f"not for tests/unit: {'; '.join(seen)}", pytrace=False)
