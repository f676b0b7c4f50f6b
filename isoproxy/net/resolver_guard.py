"""Defence in depth for one promise: this process never asks the system's resolver.

Python announces every look-up to its audit hooks before it makes it.  Once installed, the
guard refuses whatever is not an IP literal: a mistake of ours, or of a library, becomes
an error that is counted, instead of a DNS query that tells the world.

One way cannot be stopped in time: `socket.connect`, `bind` and `sendto` with a name look
it up before they announce anything.  Those are refused and counted afterwards, so that
tests and `isoproxy doctor` see the mistake.

Hooks cannot be removed: this is for the process of `isoproxy run`, not for libraries.
"""

from __future__ import annotations

import ipaddress
import sys
from functools import lru_cache
from typing import Final

from isoproxy.errors import ErrorKind, PolicyRefusal

_FORWARD: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
_REVERSE: Final = frozenset({"socket.gethostbyaddr", "socket.getnameinfo"})
_ADDRESSED: Final = frozenset({"socket.connect", "socket.bind", "socket.sendto"})


class ResolverGuard:
    """Refuses and counts look-ups; `install` it once."""

    def __init__(self) -> None:
        self.refused = 0

    def install(self) -> None:
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        """Raises PolicyRefusal for what needs a resolver."""
        if not event.startswith("socket."):
            return
        if (
            event in _REVERSE
            or (event in _FORWARD and not _is_literal(arguments[0]))
            or (event in _ADDRESSED and not _is_address(arguments[1]))
        ):
            self.refused += 1
            raise PolicyRefusal(
                "the system's resolver is never asked; only IP addresses can be used here",
                kind=ErrorKind.INTERNAL,
            )


def _is_address(address: object) -> bool:
    """Whether a socket's address is no host name; the empty host is the wildcard."""
    if not isinstance(address, tuple) or not address:
        return True  # a unix socket's path
    return address[0] in ("", b"") or _is_literal(address[0])


def _is_literal(host: object) -> bool:
    """Whether `host`, as the audited function got it, needs no look-up."""
    if host is None:
        return True
    return _parses(host.decode("ascii", "replace") if isinstance(host, bytes) else str(host))


@lru_cache(maxsize=16)  # Tor's port, again and again
def _parses(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
