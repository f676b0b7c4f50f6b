"""`isoproxy status`, `newnym`, `explain`, `reload`: questions to a running isoproxy."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from isoproxy.admin.client import ask
from isoproxy.cli import onions
from isoproxy.cli.options import Commands, add_configuration, add_json, admin_path, print_json
from isoproxy.cli.secret_input import STANDARD_INPUT, WARNING, input_line, isolation_id
from isoproxy.cli.status_text import fitting_text, status_text
from isoproxy.errors import ConfigError

_CLEAR = "\x1b[H\x1b[2J"
_STREAM: Final = ("username", "password", "target")


def register(commands: Commands) -> None:
    status = commands.add_parser("status", help="show what a running isoproxy does")
    add_configuration(status)
    add_json(status)
    status.add_argument(
        "--watch",
        action="store_true",
        help="show it anew every second: at a terminal a view with graphs, until q; "
        "otherwise text, until Ctrl-C",
    )
    status.set_defaults(run=show_status)

    newnym = commands.add_parser(
        "newnym",
        help="give every activity, or one identity, new circuits from now on",
        description="Gives every activity new circuits from now on; with LABEL or "
        "--isolation-file only that identity: its next stream has new circuits, what it knew "
        "of names is forgotten, and nobody else notices.  Streams that are open stay as they "
        "are.  `isoproxy status` shows labels, and `isoproxy explain -` tells that of a user "
        "name and password.  An identity whose circuits are renewed has another label.",
    )
    add_configuration(newnym)
    one = newnym.add_mutually_exclusive_group()
    one.add_argument(
        "label", metavar="LABEL", nargs="?", help="the identity's label (default: everybody)"
    )
    one.add_argument(
        "--isolation-file",
        metavar="FILE",
        help="the identity whose isolation ID is in this file, which nobody else may read, or "
        "with - in a line of standard input: at every listener, and its look-ups",
    )
    newnym.set_defaults(run=renew, isolation=None)

    reload = commands.add_parser("reload", help="apply the configuration as it is now")
    add_configuration(reload)
    reload.set_defaults(run=apply_configuration)

    onions.register(commands)

    explain = commands.add_parser(
        "explain",
        help="say what would keep a stream apart, and with what it would share",
        description="Says what would keep a stream with this user name and password apart, and "
        f"with what it would share.  {WARNING}  With - in place of all of it, the user name, the "
        "password and, if wanted, HOST:PORT are read from standard input, each on a line.",
    )
    add_configuration(explain)
    add_json(explain)
    explain.add_argument("--listener", metavar="L", help="name or address of the listener")
    explain.add_argument(
        "--client",
        metavar="IP",
        help="address of the client; at a unix listener, the number of its user",
    )
    explain.add_argument("username", metavar="USER", help="or - alone: read from standard input")
    explain.add_argument("password", metavar="PASS", nargs="?")
    explain.add_argument("target", metavar="HOST:PORT", nargs="?")
    explain.set_defaults(run=explain_stream)


def show_status(options: argparse.Namespace) -> int:
    path = admin_path(options)
    if options.watch:
        if not options.json and (view := _view()) is not None:
            view(partial(ask, path))
            return 0
        try:
            _watch(path, as_json=options.json)
        except KeyboardInterrupt:  # how it is meant to end
            print()  # whatever comes next begins a line of its own
            return 0
    answer = ask(path, "status")
    if options.json:
        print_json(answer)
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(status_text(answer, columns))
    return 0


def _view() -> Callable[[Callable[[str], dict[str, Any]]], None] | None:
    """The view for a terminal, if this is one and the extra `watch` is installed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    try:
        from isoproxy.cli.watch import watch
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        return None
    return watch


def _watch(path: Path, *, as_json: bool) -> NoReturn:
    before = None
    while True:
        answer = ask(path, "status")
        if as_json:
            print_json(answer)
        else:
            columns, rows = shutil.get_terminal_size()
            print(_CLEAR + fitting_text(answer, columns, rows, before), end="")
        sys.stdout.flush()
        before = answer
        time.sleep(1.0)


def renew(options: argparse.Namespace) -> int:
    who = {"label": options.label, "isolation": isolation_id(options)}
    given = {name: value for name, value in who.items() if value is not None}
    answer = ask(admin_path(options), "newnym", **given)
    if not given:
        print(f"every activity has new circuits from now on (epoch {answer['epoch']})")
        return 0
    print(
        f"this identity has new circuits from now on; streams of before: {answer['open_streams']}"
    )
    if answer["by_destination"]:
        print(
            "not at "
            + ", ".join(answer["by_destination"])
            + ", where each destination is an identity: name it by its label (isoproxy status)"
        )
    return 0


def apply_configuration(options: argparse.Namespace) -> int:
    answer = ask(admin_path(options), "reload")
    print("changed: " + (", ".join(answer["changed"]) or "nothing"))
    if answer["after_a_restart"]:
        print("takes effect after a restart: " + ", ".join(answer["after_a_restart"]))
    return 0


def explain_stream(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in ("listener", "client", *_STREAM)}
    if options.password is None:
        if options.username != STANDARD_INPUT:
            raise ConfigError("explain: expected USER PASS, or - to read them from standard input")
        given |= dict.fromkeys(_STREAM) | dict(zip(_STREAM, _input_lines(), strict=False))
    answer = ask(
        admin_path(options),
        "explain",
        **{name: value for name, value in given.items() if value is not None},
    )
    if options.json:
        print_json(answer)
        return 0
    for name, value in answer.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{name.replace('_', ' ') + ':':15} {text}")
    return 0


def _input_lines() -> list[str]:
    """User name, password and perhaps a target, a line each; bytes stay what they are."""
    lines: list[str] = []
    for name in _STREAM:
        line = input_line(name)
        if line is None or (name == "target" and not line.strip()):
            break
        lines.append(line)
    if len(lines) < 2:
        raise ConfigError("explain -: expected a user name and a password, each on a line")
    return lines
