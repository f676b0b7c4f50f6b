"""Where isoproxy listens: an IP literal with a port (0 lets the system choose), or a unix socket.

Host names are refused on purpose: looking one up would need a resolver, and isoproxy
never uses one of its own machine.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_UNIX_PATH_BYTES = 107  # sun_path of Linux, less the final NUL


@dataclass(frozen=True, slots=True)
class Address:
    """Either `path` (a unix socket) or `host` (a canonical IP literal) and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `127.0.0.1:9250`, `[::1]:9250` or `unix:/run/tor/socks`.

        Raises ValueError, whose text says what is expected and does not quote `text`.
        """
        if text.startswith("unix:"):
            return cls(path=_unix_path(text.removeprefix("unix:")))
        host, separator, port = text.rpartition(":")
        if not separator:
            raise ValueError('expected "IP:port" or "unix:/path"')
        return cls(host=_ip_literal(host), port=_port(port))

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def is_loopback(self) -> bool:
        """Reachable from this machine alone (every unix socket is)."""
        return self.is_unix or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _unix_path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError("a unix socket needs an absolute path, such as unix:/run/tor/socks")
    if len(path.encode("utf-8", "surrogateescape")) > _UNIX_PATH_BYTES:
        raise ValueError(f"the path of a unix socket may have at most {_UNIX_PATH_BYTES} bytes")
    return path


def _ip_literal(host: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError("the host must be an IP address; names are never looked up") from None
    if bracketed != (address.version == 6):
        raise ValueError("an IPv6 address is written in brackets, such as [::1]:9250")
    if getattr(address, "scope_id", None):
        raise ValueError("an IPv6 address with a zone is not supported")
    return str(address)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise ValueError("the port must be a number from 0 to 65535")
    return int(text)
