"""`isoproxy resolve` and `isoproxy names`: Namecoin names from the command line."""

from __future__ import annotations

import argparse

from isoproxy.cli.options import Commands, add_configuration
from isoproxy.cli.secret_input import WARNING, add_isolation


def register(commands: Commands) -> None:
    resolve = commands.add_parser(
        "resolve",
        help="say what a .bit name stands for",
        description="Says what a .bit name stands for: asks a running isoproxy, or does it alone "
        f"where none runs.  {WARNING}  With - for NAME it is a line of standard input.",
    )
    add_configuration(resolve)
    resolve.add_argument("--json", action="store_true", help="print one JSON object")
    resolve.add_argument("--records", action="store_true", help="print the whole zone of the name")
    add_isolation(resolve, "look it up on the circuits of this identity alone")
    resolve.add_argument("name", metavar="NAME", help="a .bit name, or - to read it")
    resolve.set_defaults(run=resolve_name)

    names = commands.add_parser("names", help="look after the light client for .bit names")
    actions = names.add_subparsers(title="actions", metavar="ACTION", required=True)
    anchor = actions.add_parser(
        "anchor",
        help="take a newer block to begin with from a Namecoin Core of your own (names.rpc)",
    )
    add_configuration(anchor)
    anchor.set_defaults(run=renew_anchor)


def resolve_name(options: argparse.Namespace) -> int:
    from isoproxy.cli.resolve import resolve_name

    return resolve_name(options)


def renew_anchor(options: argparse.Namespace) -> int:
    from isoproxy.cli.anchor import renew_anchor

    return renew_anchor(options)
