"""`isoproxy tls`: the root for HTTPS of `.bit` names, and what became of such streams."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from isoproxy.admin.client import ask
from isoproxy.cli.options import Commands, add_configuration, add_json, admin_path, print_json

if TYPE_CHECKING:
    from isoproxy.tls.root import RootFiles


def register(commands: Commands) -> None:
    tls = commands.add_parser("tls", help="HTTPS for .bit names: the root that browsers import")
    actions = tls.add_subparsers(title="actions", metavar="ACTION", required=True)

    init = actions.add_parser(
        "init",
        help="make a root on this machine",
        description="Makes a root certificate on this machine, which browsers hold to names "
        "under bit, and prints it.  Its key stays in the state directory: run this as the user "
        "who runs isoproxy.",
    )
    init.set_defaults(run=make_root)

    root = actions.add_parser(
        "root",
        help="print the root, for a browser to import",
        description="Prints the root certificate in PEM; with --path the file that it is in.",
    )
    root.add_argument("--path", action="store_true", help="print where it is instead")
    root.set_defaults(run=print_root)

    status = actions.add_parser("status", help="show what became of streams answered with TLS")
    add_configuration(status)
    add_json(status)
    status.set_defaults(run=show_status)

    forget = actions.add_parser(
        "forget",
        help="remove the root and its key",
        description="Removes the root and its key from this machine.  What has imported it "
        "believes it until it is removed there, too.",
    )
    forget.set_defaults(run=forget_root)


def make_root(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    root = _files().create(datetime.now(UTC).replace(microsecond=0))
    print(root.certificate_pem().decode(), end="")
    return 0


def print_root(options: argparse.Namespace) -> int:
    files = _files()
    certificate = files.certificate()
    print(files.certificate_path if options.path else certificate.decode().rstrip("\n"))
    return 0


def forget_root(options: argparse.Namespace) -> int:
    if _files().forget():
        print("the root is gone; remove it from your browsers, too, and restart isoproxy")
    else:
        print("there is no root")
    return 0


def show_status(options: argparse.Namespace) -> int:
    answer = ask(admin_path(options), "tls")
    if options.json:
        print_json(answer)
        return 0
    if not answer["enabled"]:
        print("off; see [tls] in the configuration")
        return 0
    print(f"listeners: {', '.join(answer['listeners']) or 'none'}")
    print(f"intermediate: until {answer['intermediate_ends']}")
    for stream in answer["streams"]:
        print(f"{stream['count']:>8}  {stream['outcome']}: {stream['explanation']}")
    return 0


def _files() -> RootFiles:
    from isoproxy.config import state_directory
    from isoproxy.daemon.compose.tls import root_files

    return root_files(state_directory())
