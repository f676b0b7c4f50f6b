"""`python -m manual DIRECTORY`: write all pages and completions there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import shtab

import prop279.__main__ as plugin
import stemns_plugin.__main__ as stemns
from isoproxy.cli import parser as isoproxy_parser
from manual.commands import Command, command_page
from manual.settings import settings_page

_EXIT: Final = {
    "0": "Success.",
    "1": "The operation failed.",
    "2": "A wrong option or configuration.",
}
_SIGNALS: Final = {
    "SIGHUP": "isoproxy run reads its configuration again. A file with an error changes nothing.",
    "SIGTERM, SIGINT": "Accept nobody any more, let streams go on for limits.drain_timeout_s, end.",
}
_ENVIRONMENT: Final = {
    "STATE_DIRECTORY": "Where block headers and keys are kept; systemd(1) sets it.",
    "RUNTIME_DIRECTORY": "Where the admin socket is, unless observe.admin says it.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS": "As sd_notify(3) and sd_listen_fds(3) say. The\n"
    "socket named socks-NAME is taken by the listener NAME.",
}
_ISOPROXY: Final = """
isoproxy is a SOCKS5, SOCKS4a and HTTP CONNECT proxy in front of Tor. Streams with different SOCKS
user names or passwords never share a circuit. The two are no authentication: anything goes, and
each pair is an identity of its own.

Namecoin names, which end in .bit, are proven against proof of work, through Tor, before anything
is dialled. Bitcoin's old plaintext protocol leaves as encrypted v2 (BIP324).

No name is given to the system's resolver, and nothing is dialled except through Tor.
"""
_STEMNS: Final = """
stemns is a controller of Tor. It resolves the names of programs that use Tor's own ports, each
under the isolation that Tor itself applies to the stream, and has Tor attach all streams.

Tor's torrc needs __LeaveStreamsUnattached 1. While that is set, no stream goes anywhere unless
stemns runs.
"""
_PLUGIN: Final = """
prop279-namecoin is a name plugin by Tor's proposal 279: it reads RESOLVE lines from standard
input and writes RESOLVED lines. The isolation ID of a line is the identity of its look-up; a line
without one is an identity of its own.

Besides its own options it takes those of ncprop279 under their names.
"""


def commands() -> tuple[Command, ...]:
    """All programs of the package."""
    return (
        Command(
            "isoproxy", 8, "a front door to Tor that keeps separate activities apart",
            isoproxy_parser(), _ISOPROXY,
            {
                "EXIT STATUS": _EXIT,
                "SIGNALS": _SIGNALS,
                "ENVIRONMENT": _ENVIRONMENT,
                "FILES": {
                    "/etc/isoproxy/isoproxy.toml": "Settings; see isoproxy.toml(5).",
                    "/var/lib/isoproxy": "State of the service.",
                    "/run/isoproxy": "Sockets of the service.",
                },
            },
            ("isoproxy.toml(5)", "stemns(8)", "prop279-namecoin(1)", "tor(1)", "torsocks(1)"),
        ),
        Command(
            "stemns", 8, "Namecoin names for programs that use Tor's own ports",
            stemns.argument_parser(), _STEMNS,
            {
                "EXIT STATUS": _EXIT,
                "FILES": {
                    "/etc/isoproxy/stemns.toml": "Settings.",
                    "/etc/isoproxy/isoproxy.toml": "Settings of look-ups; see isoproxy.toml(5).",
                },
            },
            ("isoproxy(8)", "prop279-namecoin(1)", "tor(1)"),
        ),
        Command(
            "prop279-namecoin", 1, "Namecoin name plugin for Tor's proposal 279",
            plugin.argument_parser(), _PLUGIN,
            {
                "EXIT STATUS": _EXIT,
                "FILES": {"/etc/isoproxy/isoproxy.toml": "Settings; see isoproxy.toml(5)."},
            },
            ("isoproxy(8)", "isoproxy.toml(5)", "stemns(8)"),
        ),
    )  # fmt: skip


def write_all(directory: Path) -> list[Path]:
    """Write every page and completion; returns the files."""
    contents = {"isoproxy.toml.5": settings_page()}
    for command in commands():
        contents[f"{command.name}.{command.section}"] = command_page(command)
        for shell, name in (("bash", f"{command.name}.bash"), ("zsh", f"_{command.name}")):
            contents[name] = shtab.complete(command.parser, shell)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (directory / name).write_text(text, "utf-8")
    return [directory / name for name in contents]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manual", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    write_all(parser.parse_args().directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
