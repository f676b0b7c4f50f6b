"""Where a port is, of ours or of Tor's: a TCP address, a unix socket, or nowhere.

Theory of operation
    The configuration names ports as text: `127.0.0.1:9050`, `[::1]:9050`,
    `unix:/run/tor/socks` or `none`.  `Endpoint.parse` turns what we connect to, and
    `Endpoint.parse_listening` where we listen, into a value that a socket can use as it is.

Invariants
    A host is an IP literal in canonical form: a host name would need a resolver, and
    nothing in isoproxy asks the system's.  A unix path is absolute and fits the 107
    bytes that Linux gives a socket's name (unix(7), `sun_path`).  Exactly one of
    `path` and `host` is set, or neither for `none`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, replace

from isoproxy.errors import ConfigError

MAX_UNIX_PATH = 107
"""Bytes that fit `sun_path` on Linux, the closing NUL not counted."""

_LOCAL_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"),
    )
)
_UNIX_PREFIX = "unix:"
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address (`host` and `port`), a unix socket (`path`), or none of both."""

    host: str | None = None
    port: int = 0
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """What `text` names to connect to; `ConfigError` says what is wrong with it."""
        if text == "none":
            return cls()
        if text.startswith(_UNIX_PREFIX):
            return cls.unix(text.removeprefix(_UNIX_PREFIX))
        match = _HOST_PORT.fullmatch(text)
        if match is None:
            raise ConfigError(
                "an endpoint is written '127.0.0.1:9050', '[::1]:9050', 'unix:/path' or 'none'"
            )
        return cls.tcp(match["v4"] if match["v6"] is None else match["v6"], int(match["port"]))

    @classmethod
    def parse_listening(cls, text: str) -> Endpoint:
        """What `text` names to listen at; port 0 lets the system choose one.  ConfigError."""
        host, colon, port = text.rpartition(":")
        if text == "none":
            raise ConfigError("expected 'IP:port' or 'unix:/path'")
        if colon and re.fullmatch("0{1,5}", port) and not text.startswith(_UNIX_PREFIX):
            return replace(cls.parse(f"{host}:1"), port=0)
        return cls.parse(text)

    @classmethod
    def tcp(cls, host: str, port: int) -> Endpoint:
        """A TCP endpoint; `host` is an IP literal without brackets, `port` is 1-65535."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError(
                "an endpoint's host must be an IP address, because a name would have to be "
                "asked of the system's resolver; write 127.0.0.1 instead of localhost"
            ) from None
        if getattr(address, "scope_id", None) is not None:
            raise ConfigError("an endpoint's IPv6 address may have no %zone; leave it out")
        if not 1 <= port <= 65535:
            raise ConfigError("an endpoint's port must be between 1 and 65535")
        return cls(host=str(address), port=port)

    @classmethod
    def unix(cls, path: str) -> Endpoint:
        """A unix socket at the absolute `path`, at most 107 bytes long."""
        if not path.startswith("/"):
            raise ConfigError("a unix socket needs an absolute path, as in 'unix:/run/tor/socks'")
        if not path.isprintable():
            raise ConfigError("a unix socket's path may hold printable characters only")
        length = len(os.fsencode(path))
        if length > MAX_UNIX_PATH:
            raise ConfigError(
                f"a unix socket's path has at most {MAX_UNIX_PATH} bytes and this one has "
                f"{length}; choose a shorter directory"
            )
        return cls(path=path)

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of a socket for it."""
        if self.path is not None:
            return socket.AF_UNIX
        return family_of(self.host or "")

    @property
    def is_unix(self) -> bool:
        return self.path is not None

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine for sure (every unix socket is)."""
        return self.host is None or ipaddress.ip_address(self.host).is_loopback

    @property
    def is_local(self) -> bool:
        """Whether it can only be on this machine or its own network; what else there is lies
        behind Tor."""
        if self.host is None:
            return self.path is not None
        address = ipaddress.ip_address(self.host)
        return any(address in network for network in _LOCAL_NETWORKS)

    @property
    def is_none(self) -> bool:
        """Whether this is `none`: there is no such port, and everything works without it."""
        return self.host is None and self.path is None

    @property
    def address(self) -> str | tuple[str, int]:
        """What a socket of its `family` takes to connect or bind to it; it is not `none`."""
        if self.path is not None:
            return self.path
        assert self.host is not None, "there is no such port"
        return self.host, self.port

    def __str__(self) -> str:
        if self.path is not None:
            return _UNIX_PREFIX + self.path
        if self.host is None:
            return "none"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def family_of(host: str) -> socket.AddressFamily:
    """The address family of an IP literal."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
