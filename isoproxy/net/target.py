"""Where a stream is to go: a validated host and port, the only thing a dialer accepts.

Theory of operation
    Tor writes the host names it is asked for raw into the lines of its control port, so
    a name with a line break in it forges events and replies for every controller.  Exits
    hand names to resolvers, some of which read `0x7f.1` or `2130706433` as an address.
    Both are stopped here, before anything else looks at a name: a `Target` holds either
    the canonical text of an IP address or a name of a strict grammar (letters, digits,
    '.', '-', '_'; 1-249 bytes; no empty label; not ending in a number).

    A name's final dot is dropped.  To Tor `<service>.onion.` is no onion service but a
    host name, which an exit would be asked for; to us and to who wrote it, it is one.

    Some top-level labels mean nothing to an exit and would only tell it what is being
    looked for: those of `NEVER_SENT_TO_TOR`, `.bit` first among them, and `onion` alone.

Invariants
    A Target is immutable, lower-case, and safe to write into a line of any protocol.
    It is the one normal form of a host: what is judged and what is sent to Tor is made
    from it, never from the text that came in.

Specification: RFC 1035 §2.3.1, RFC 1123 §2.1 (names), RFC 7686 §2 (`onion`), RFC 5952 (IPv6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from isoproxy.errors import ErrorKind, PolicyRefusal

MAX_NAME_LENGTH: Final = 249
"""Bytes; from 250 on Tor cuts names off in its events (and 255 is its limit)."""

NEVER_SENT_TO_TOR: Final = frozenset(
    {"bit", "i2p", "exit", "local", "localhost", "internal", "invalid", "alt", "gnu", "zkey"}
)
"""Top-level labels no exit may be asked for; `home.arpa` is matched as a whole."""

_NAME: Final = re.compile(
    rf"(?=.{{1,{MAX_NAME_LENGTH}}}\Z)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?", re.ASCII
)
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:\A|\.)(?:[0-9]+|0x[0-9a-f]*)\.?\Z", re.ASCII)
_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_CANONICAL_IPV4: Final = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """A destination that may be written to Tor.

    `host` is a lower-case name without a final dot or the canonical text of an IP address
    (no brackets, no zone); `port` is 0-65535, 0 only where a protocol has no port (RESOLVE).
    """

    host: str
    port: int
    is_ip: bool = False

    @classmethod
    def parse(cls, host: bytes | str, port: int) -> Target:
        """Validate what a client asked for; raises PolicyRefusal(NAME_SYNTAX)."""
        if isinstance(host, bytes):
            host = host.decode("ascii", "replace")
        if not host.isascii() or not 0 <= port <= 0xFFFF:
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        if _CANONICAL_IPV4.fullmatch(host) is not None:
            return cls(host, port, True)
        host = host.lower()
        if _NAME.fullmatch(host) is None or _ENDS_IN_A_NUMBER.search(host) is not None:
            return cls(_canonical_ipv6(host), port, True)
        return cls(host.removesuffix("."), port)

    @property
    def is_onion(self) -> bool:
        """Whether Tor takes it for the address of an onion service, a valid one or not."""
        return not self.is_ip and self.host.endswith(".onion")

    def top_level(self) -> str:
        """The last label; "" for an IP address."""
        return "" if self.is_ip else self.host.rpartition(".")[2]

    def may_be_sent_to_tor(self, never: frozenset[str] = NEVER_SENT_TO_TOR) -> bool:
        """False where the name means nothing to Tor and would only leak to an exit."""
        if self.is_ip:
            return True
        return (
            self.top_level() not in never
            and self.host not in ("onion", "home.arpa")
            and not self.host.endswith(".home.arpa")
        )

    def with_host(self, host: str) -> Target:
        """The same port elsewhere (an alias, a resolved address)."""
        return Target.parse(host, self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _canonical_ipv6(text: str) -> str:
    """The canonical text of an IPv6 address; raises PolicyRefusal(NAME_SYNTAX)."""
    if len(text) > 2 and text[0] == "[" and text[-1] == "]":
        text = text[1:-1]
    try:
        if ":" in text and "%" not in text and len(text) <= 45:
            return str(IPv6Address(text))
    except ValueError:
        pass
    raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
