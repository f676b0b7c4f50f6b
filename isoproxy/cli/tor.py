"""`isoproxy tor`: the tor that isoproxy runs itself."""

from __future__ import annotations

import argparse

from isoproxy.admin.client import ask
from isoproxy.cli.options import Commands, add_configuration, admin_path
from isoproxy.errors import OperationError


def register(commands: Commands) -> None:
    tor = commands.add_parser("tor", help="look after the tor that isoproxy runs itself")
    actions = tor.add_subparsers(title="actions", metavar="ACTION", required=True)
    log = actions.add_parser(
        "log",
        help="show what it said last",
        description="Shows the last lines of the log of isoproxy's own tor.  They are kept in "
        "memory alone, and whatever could identify somebody's activity is left out of them.",
    )
    add_configuration(log)
    log.set_defaults(run=show_log)


def show_log(options: argparse.Namespace) -> int:
    lines = ask(admin_path(options), "tor_log")["lines"]
    if lines is None:
        raise OperationError(
            "this tor is not isoproxy's own; look into its own log (on Debian: journalctl -u "
            "tor@default)"
        )
    for line in lines:
        print(line)
    return 0
