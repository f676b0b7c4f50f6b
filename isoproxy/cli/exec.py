"""`isoproxy exec`: a program in a network from which nothing leads out but isoproxy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from isoproxy.cli.options import Commands, add_configuration, admin_path
from isoproxy.cli.secret_input import WARNING, add_isolation, isolation_id
from isoproxy.config.paths import runtime_directory, state_directory
from isoproxy.errors import ConfigError

_FOR_PROFILES: Final = ("/run/isoproxy", "/srv")


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "exec",
        help="start a program whose network is a running isoproxy, without settings of its own",
        description="Starts PROGRAM in a user, network and mount namespace of its own, as the same "
        "user: all its TCP goes through a running isoproxy, which answers its DNS as well; UDP is "
        "refused.  It needs no root.  The exit code is the program's; 127 and 126 if it cannot be "
        f"started.  It is no sandbox: files and desktop stay what they are.  {WARNING}",
    )
    add_configuration(command)
    add_isolation(
        command,
        "programs of one user with the same ID are one identity (default: a fresh identity, shared "
        "with nothing); it is none that a SOCKS client could have",
    )
    command.add_argument(
        "--browser",
        action="store_true",
        help="give Firefox or Chromium a fresh profile, in memory, which is gone at the end; "
        "without PROGRAM the first of them that is installed",
    )
    command.add_argument(
        "--profile", type=Path, metavar="DIR", help="have --browser keep the profile in DIR"
    )
    command.add_argument(
        "program",
        metavar="PROGRAM",
        nargs=argparse.REMAINDER,
        help="the program and its arguments, after --",
    )
    command.set_defaults(run=execute)


def execute(options: argparse.Namespace) -> int:
    from isoproxy.exec.browser import Browser, browser_of, place_for
    from isoproxy.exec.handover import exec_address
    from isoproxy.exec.launch import Launch, ProgramMissing, launch

    words = options.program[1:] if options.program[:1] == ["--"] else options.program
    if options.profile is not None and not options.browser:
        raise ConfigError("--profile: it is that of --browser")
    own, browser = str(runtime_directory()), None
    if options.browser:
        words = words or [browser_of(words)]
        browser = Browser(browser_of(words), place_for((own, *_FOR_PROFILES)), options.profile)
    if not words:
        raise ConfigError("exec: expected a program, as in: isoproxy exec -- curl example.org")
    isolation, handover = isolation_id(options), exec_address(admin_path(options))
    hide = (own, str(state_directory() / "tor"))
    sys.stdout.flush()
    try:
        launch(Launch(words, isolation, handover, hide, browser))
    except ProgramMissing as error:
        print(f"isoproxy: {error}", file=sys.stderr)
        return error.code
