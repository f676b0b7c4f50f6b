"""Who is compared: other SOCKS5 servers and isoproxy, each behind the same user and password.

isoproxy never dials a target itself: every stream costs it a second SOCKS handshake, with Tor.
The peers dial the target.  Peers that can be chained run a second time behind the same stand-in
for Tor's SocksPort that isoproxy uses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import programs
from benchmarks.running import FarEnd

USER = "bench"
PASSWORD = "bench"


class Role(enum.Enum):
    """What a row of the table is."""

    BOUND = "bound"  # no proxy: what the machine can do
    PEER = "peer"
    CHAINED = "peer, chained"
    OURS = "isoproxy"


Command = Callable[[tuple[str, int], FarEnd], list[str]]


@dataclass(frozen=True)
class Contender:
    """One row.  `command` starts the proxy at an address; None: the load goes there directly.

    `distinct`: each connection comes with a user of its own, so with its own isolation state.
    The peers know one user only.
    """

    name: str
    role: Role
    command: Command | None = None
    socks_layer: bool = False
    distinct: bool = False


def _microsocks(listen: tuple[str, int], _end: FarEnd) -> list[str]:
    host, port = listen
    return [str(programs.microsocks()), "-i", host, "-p", str(port), "-u", USER, "-P", PASSWORD]


def _gosocks5(listen: tuple[str, int], _end: FarEnd) -> list[str]:
    return [str(programs.gosocks5()), _text(listen), USER, PASSWORD]


def _gosocks5_chained(listen: tuple[str, int], end: FarEnd) -> list[str]:
    return [*_gosocks5(listen, end), end.socks]


def _pproxy(listen: tuple[str, int], _end: FarEnd) -> list[str]:
    return [str(programs.pproxy()), "-l", f"socks5://{_text(listen)}#{USER}:{PASSWORD}"]


def _pproxy_chained(listen: tuple[str, int], end: FarEnd) -> list[str]:
    return [*_pproxy(listen, end), "-r", f"socks5://{end.socks}#{USER}:{PASSWORD}"]


def isoproxy_command(listen: tuple[str, int], socks: str) -> list[str]:
    """isoproxy in front of a SocksPort, without a control port."""
    settings = {
        "tor.mode": "system",
        "tor.socks": socks,
        "tor.control": "none",
        "listener": f'[{{address="{_text(listen)}"}}]',
    }
    command = [programs.python(), "-m", "isoproxy", "run"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return command


def _isoproxy(listen: tuple[str, int], end: FarEnd) -> list[str]:
    return isoproxy_command(listen, end.socks)


def _isoproxy_unix(listen: tuple[str, int], end: FarEnd) -> list[str]:
    return isoproxy_command(listen, end.socks_unix)


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


DIRECT = Contender("direct", Role.BOUND)

ALL = [
    DIRECT,
    Contender("SOCKS layer alone", Role.BOUND, socks_layer=True),
    Contender("microsocks", Role.PEER, _microsocks),
    Contender("go-socks5", Role.PEER, _gosocks5),
    Contender("pproxy", Role.PEER, _pproxy),
    Contender("isoproxy", Role.OURS, _isoproxy, distinct=True),
    Contender("isoproxy, unix", Role.OURS, _isoproxy_unix, distinct=True),
    Contender("go-socks5, chained", Role.CHAINED, _gosocks5_chained),
    Contender("pproxy, chained", Role.CHAINED, _pproxy_chained),
]
