"""What isoproxy tells the tor that it starts, and what it reads off that tor's output.

Theory of operation
    `torrc` writes the whole configuration: nothing of the system's is read, so it means
    the same on every machine.  Streams come in through one unix socket in a directory
    that only we may enter.  `TorOutput` reads tor's standard output: its first moments,
    which is where it explains what it cannot accept, and all of it for `TorLog`.

Invariants
    No DNSPort, no TCP port.  Conflux is off: it hands a tuple's streams from circuit to
    circuit and leaves new tuples without a clean one.  Lines of the user's own cannot
    change what isolation rests on: their option names are compared as tor does it,
    without case, by prefix, and with `+`, `/` or `__` in front.
    A tor that does not know a flag of the SocksPort only warns, and would run without
    that isolation: `TorOutput` makes it an error.

Specification: tor(1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import MAX_UNIX_PATH, Endpoint
from isoproxy.tor.managed.output import ProgramOutput

SOCKS_FLAGS: Final = "IsolateSOCKSAuth KeepAliveIsolateSOCKSAuth ExtendedErrors"

Version = tuple[int, int, int, int]
OLDEST: Final[Version] = (0, 4, 7, 1)
_FIRST_WITH_CONFLUX: Final[Version] = (0, 4, 8, 1)

_OURS: Final = (
    "%include",
    "confluxenabled",
    "controllistenaddress",
    "controlport",
    "controlportfilemode",
    "controlportwritetofile",
    "controlsocket",
    "cookieauthentication",
    "cookieauthfile",
    "datadirectory",
    "dnslistenaddress",
    "dnsport",
    "hashedcontrolpassword",
    "httptunnelport",
    "log",
    "natdport",
    "owningcontrollerfd",
    "owningcontrollerprocess",
    "pidfile",
    "runasdaemon",
    "safelogging",
    "sockslistenaddress",
    "socksport",
    "transport",
    "user",
)
NO_VERSION: Final = (
    "the program that should be tor does not tell its version; correct tor.binary, or install tor"
)
_OPTION = re.compile(r"[+/]?(?:__)?(%?[A-Za-z0-9_]+)")
_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)\.(\d+)\b")


def parse_version(text: str) -> Version:
    """The version in tor's answer to `--version` or `GETINFO version`."""
    match = _VERSION.search(text)
    if match is None:
        raise ConfigError(NO_VERSION)
    return (int(match[1]), int(match[2]), int(match[3]), int(match[4]))


def socket_in(directory: Path, name: str) -> Endpoint:
    """The unix socket `name` in `directory`; ConfigError if its path is too long."""
    path = str(directory / name)
    try:
        return Endpoint.unix(path)
    except ConfigError as error:
        raise ConfigError(
            f"tor's sockets cannot be made in the state directory: {error} "
            f"(STATE_DIRECTORY or XDG_STATE_HOME, so that all is within {MAX_UNIX_PATH} bytes)"
        ) from None


def torrc(directory: Path, version: Version, extra: Sequence[str] = ()) -> str:
    """The whole torrc of a managed tor that lives in `directory`."""
    if version < OLDEST:
        raise ConfigError(
            "this tor is too old: isoproxy needs 0.4.7 or later; upgrade tor, or set "
            'tor.mode = "system"'
        )
    if any(c in '"\\' or not c.isprintable() for c in str(directory)):
        raise ConfigError("the state directory's path may hold no quotes or backslashes")
    lines = [
        f'DataDirectory "{directory}/data"',
        f'SocksPort unix:"{directory}/socks" {SOCKS_FLAGS}',
        f'ControlPort unix:"{directory}/control"',
        "CookieAuthentication 1",
        f'CookieAuthFile "{directory}/cookie"',
        "DNSPort 0",
        "TransPort 0",
        "NATDPort 0",
        "HTTPTunnelPort 0",
        "SafeLogging 1",
        "Log notice stdout",
        "AvoidDiskWrites 1",
    ]
    if version >= _FIRST_WITH_CONFLUX:
        lines.append("ConfluxEnabled 0")
    lines += [checked(line) for line in extra]
    return "\n".join(lines) + "\n"


def checked(line: str) -> str:
    """A line of the user's, if it leaves alone what isoproxy sets itself; else ConfigError."""
    text = line.strip()
    if not text or text.startswith("#"):
        return ""
    if not text.isprintable() or text.endswith("\\"):
        raise ConfigError("an entry is one line of torrc, without continuation")
    match = _OPTION.match(text)
    if match is None:
        raise ConfigError("an entry begins with the name of an option of tor's")
    name = match[1].lower()
    if any(ours.startswith(name) for ours in _OURS):
        raise ConfigError(
            f"{match[1]} is set by isoproxy, because isolation rests on it; "
            'remove the line, or run your own tor and set tor.mode = "system"'
        )
    return text


_STAMP = re.compile(
    r"^.{3,40}? (?P<time>\d\d:\d\d:\d\d)\.\d{3} \[(?P<level>notice|warn|err)\] (?P<text>.*)$"
)


class TorOutput(ProgramOutput):
    """Reads tor's output, and what it says of its configuration."""

    is_bad_config = False
    lacks_isolation = False

    def _line(self, line: str) -> None:
        match = _STAMP.match(line)
        if match is None:
            return
        text = match["text"]
        self.log.add(match["time"], match["level"], text)
        if self._settled or match["level"] == "notice":
            return
        self._complaint(text)
        if "Unrecognized SocksPort option" in text:
            self.lacks_isolation = True
        if text.startswith(("Reading config failed", "Failed to parse/validate config")):
            self.is_bad_config = True
