"""Defence in depth for one promise: this process never asks the system's resolver.

Python announces every look-up to its audit hooks before it makes it.  Once installed, the
guard refuses whatever is not an IP literal: a mistake of ours, or of a library, becomes
an error that is counted, instead of a DNS query that tells the world.

Hooks cannot be removed: this is for the process of `isoproxy run`, not for libraries.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Final

from isoproxy.errors import ErrorKind, PolicyRefusal

_LOOKUPS: Final = frozenset(
    {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
)


class ResolverGuard:
    """Refuses and counts look-ups; `install` it once."""

    def __init__(self) -> None:
        self.refused = 0

    def install(self) -> None:
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        """Raises PolicyRefusal for a look-up that needs a resolver."""
        if event in _LOOKUPS and not _is_literal(arguments[0]):
            self.refused += 1
            raise PolicyRefusal(
                "the system's resolver is never asked; only IP addresses can be used here",
                kind=ErrorKind.INTERNAL,
            )


def _is_literal(host: object) -> bool:
    """Whether `host`, as the audited function got it, needs no look-up."""
    if host is None:
        return True
    if isinstance(host, tuple) and host:
        return False  # getnameinfo() asks for the name of an address
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
