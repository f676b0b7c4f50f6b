"""`isoproxy onions`: its own onion services, and those of others that ask for a client key."""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Final

from isoproxy.admin.client import ask
from isoproxy.cli.options import Commands, add_configuration, add_json, admin_path, print_json
from isoproxy.cli.secret_input import STANDARD_INPUT, WARNING, word
from isoproxy.errors import ConfigError

_MAX_KEY_FILE: Final = 4096


def register(commands: Commands) -> None:
    onions = commands.add_parser(
        "onions",
        help="show its onion services, or visit one that asks for a key",
        description="Without an action: shows the addresses of isoproxy's own onion services.",
    )
    add_configuration(onions)
    add_json(onions)
    onions.set_defaults(run=show_onions)
    actions = onions.add_subparsers(title="actions", metavar="ACTION")

    trust = actions.add_parser(
        "trust",
        help="visit a service that lets only clients with a key in",
        description="Gives Tor the client key for an onion service.  Clients of one listener may "
        "go there; to those of others isoproxy answers as a Tor without the key does, because "
        f"Tor itself would let every program in.  {WARNING}",
    )
    add_configuration(trust)
    trust.add_argument(
        "address", metavar="ADDRESS", help="the service, or - to read it from standard input"
    )
    trust.add_argument(
        "key_file", type=Path, metavar="KEYFILE", help="the private key, as it was handed out"
    )
    trust.add_argument(
        "--listener", required=True, metavar="NAME", help="whose clients may go there"
    )
    trust.set_defaults(run=trust_service)

    distrust = actions.add_parser("distrust", help="forget the key for a service")
    add_configuration(distrust)
    distrust.add_argument(
        "address", metavar="ADDRESS", help="the service, or - to read it from standard input"
    )
    distrust.set_defaults(run=distrust_service)


def show_onions(options: argparse.Namespace) -> int:
    answer = ask(admin_path(options), "onions")
    if options.json:
        print_json(answer)
        return 0
    for service in answer["onion_services"]:
        problem = f": {service['problem']}" if service["problem"] else ""
        print(f"{service['name']}: {service['stage']}{problem}")
        for line in service["addresses"]:
            print(f"  {line}")
    if not answer["onion_services"]:
        print("none; see [[onion_service]] in the configuration, and: isoproxy publish --help")
    return 0


def trust_service(options: argparse.Namespace) -> int:
    address = word(options.address, "address")
    key = _key_in(options.key_file)
    ask(admin_path(options), "trust", address=address, key=key, listener=options.listener)
    print(f"clients of listener {options.listener}, and no others, may visit this service")
    return 0


def distrust_service(options: argparse.Namespace) -> int:
    ask(admin_path(options), "distrust", address=word(options.address, "address"))
    print("the key for this service is forgotten")
    return 0


def _key_in(path: Path) -> str:
    """The text of a private file."""
    if str(path) == STANDARD_INPUT:
        return word(STANDARD_INPUT, "client key")
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise ConfigError(f"the key file cannot be read: {error.strerror}") from None
    if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError("other users may use the key file; chmod 600 it")
    return content.decode("ascii", "replace")
