"""`isoproxy run` and `isoproxy check`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final, TextIO

from isoproxy.cli.options import Commands, add_configuration, loaded
from isoproxy.config import Loaded, load, sample_toml

GARBAGE_THRESHOLD: Final = 20_000
"""New objects that set off a search for cycles among them."""


def register(commands: Commands) -> None:
    run = commands.add_parser("run", help="open the listeners and serve until stopped")
    add_configuration(run)
    run.set_defaults(run=run_service)
    check = commands.add_parser("check", help="check the configuration")
    add_configuration(check)
    check.add_argument(
        "--sample",
        action="store_true",
        help="print a commented sample file; it sets what -c and --set do",
    )
    check.set_defaults(run=check_configuration)


def run_service(options: argparse.Namespace) -> int:
    import asyncio
    import gc

    from isoproxy.daemon import Daemon
    from isoproxy.daemon.settings.descriptors import fit, raise_limit
    from isoproxy.daemon.settings.log import configure_log
    from isoproxy.daemon.settings.streams import stream_processes
    from isoproxy.net.reactor import ReactorLoop
    from isoproxy.net.resolver_guard import ResolverGuard

    descriptors = raise_limit()

    def fitting(found: Loaded) -> Loaded:
        return fit(found, descriptors, stream_processes(found.config))

    found = fitting(loaded(options))
    configure_log(found.config)

    guard = ResolverGuard()
    guard.install()

    def again() -> Loaded:
        return fitting(load(options.config, options.settings))

    # A log in JSON is read by a program: it has the same events, and no other line.
    plain = found.config.observe.log_format != "json"

    async def serve(nowhere: TextIO) -> None:
        out = sys.stdout if plain and sys.stdout is not None else nowhere
        progress = sys.stderr if plain else nowhere
        await Daemon(found, again, guard=guard, out=out, progress=progress).run()

    # A stream makes some dozens of objects, and no cycle: cycles are worth a rare look.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    with open(os.devnull, "w") as nowhere, asyncio.Runner(loop_factory=ReactorLoop) as runner:
        runner.run(serve(nowhere))
    return 0


def check_configuration(options: argparse.Namespace) -> int:
    if options.sample:
        asked = options.config is not None or options.settings
        print(sample_toml(loaded(options).config if asked else None), end="")
        return 0
    from isoproxy.daemon.compose.names import check_names

    found = loaded(options)
    check_names(found.config.names)
    for warning in found.warnings:
        print(f"isoproxy: warning: {warning}", file=sys.stderr)
    files = ", ".join(str(file) for file in found.files) or "defaults, no file"
    print(f"the configuration is valid ({files})")
    return 0
