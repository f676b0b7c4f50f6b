"""How a tor of our own reaches its network: bridges, a proxy, the ports that a firewall allows.

Theory of operation
    From the settings to lines of torrc.  A transport is a program of its own that tor
    starts: it dials the bridge, and some (snowflake, meek_lite, webtunnel) resolve names,
    outside Tor and by the system's resolver.  That is what it is for; nothing of what
    goes through Tor is said there.

Invariants
    As in `bridges`: errors quote nothing, and a repr shows neither bridge nor proxy.

Specification: tor(1) UseBridges, ReachableAddresses, HTTPSProxy, Socks4Proxy, Socks5Proxy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.managed.bridges import Bridge, Transport, transport_lines

_PROXY: Final = re.compile(
    r"(http|socks4|socks5)://(?:([!-9;-~]{1,255}):([!-~]{1,255})@)?([0-9A-Fa-f.:\[\]]+)/?", re.ASCII
)
_EXPECTED: Final = 'expected "socks5://IP:PORT", "socks4://IP:PORT" or "http://IP:PORT"'


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy between tor and the internet; a login goes with http and socks5."""

    kind: str
    endpoint: Endpoint
    login: tuple[str, str] | None = None

    @property
    def lines(self) -> list[str]:
        if self.kind == "http":
            login = [] if self.login is None else [":".join(self.login)]
            return [
                f"HTTPSProxy {self.endpoint}",
                *(f"HTTPSProxyAuthenticator {text}" for text in login),
            ]
        if self.kind == "socks4":
            return [f"Socks4Proxy {self.endpoint}"]
        lines = [f"Socks5Proxy {self.endpoint}"]
        if self.login is not None:
            user, password = self.login
            lines += [f"Socks5ProxyUsername {user}", f"Socks5ProxyPassword {password}"]
        return lines


@dataclass(frozen=True, slots=True)
class Egress:
    """All of it; as it is by default, tor connects to relays by itself."""

    bridges: tuple[Bridge, ...] = field(default=(), repr=False)
    transports: tuple[Transport, ...] = ()
    firewall_ports: tuple[int, ...] = ()
    proxy: Proxy | None = field(default=None, repr=False)

    @property
    def is_secret(self) -> bool:
        """Whether tor may not be quoted, since it was told what no other may learn."""
        return bool(self.bridges) or self.proxy is not None

    def lines(self, find: Callable[[str], str | None]) -> list[str]:
        """Lines of torrc; `find(program)` is where a program is installed.  ConfigError."""
        lines = transport_lines(self.bridges, self.transports, find)
        if self.firewall_ports:
            allowed = ",".join(f"*:{port}" for port in self.firewall_ports)
            lines.append(f"ReachableAddresses {allowed}")
        return lines + (self.proxy.lines if self.proxy is not None else [])


DIRECT: Final = Egress()


def read_proxy(text: str) -> Proxy:
    """`socks5://[USER:PASSWORD@]IP:PORT` and the like; raises ConfigError, which quotes nothing."""
    match = _PROXY.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{_EXPECTED}, with USER:PASSWORD@ before IP where there is a login")
    kind, user, password, place = match.groups()
    if user is not None and kind == "socks4":
        raise ConfigError("a socks4 proxy has no login; use socks5 or http")
    try:
        endpoint = Endpoint.parse(place)
    except ConfigError:
        raise ConfigError(_EXPECTED) from None
    return Proxy(kind, endpoint, None if user is None else (user, password))
