"""`stemns` (names for programs at Tor's own ports), `stemns control-filter` (for workstations).

Exit codes: 0 after SIGTERM or SIGINT, 1 if Tor cannot be served safely, 2 for a wrong setting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from isoproxy.errors import ConfigError, IsoproxyError
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.observe.log import configure
from prop279.host import PluginHost
from prop279.protocol import Environment
from stemns_plugin.control_filter import ControlFilter
from stemns_plugin.controller import Controller
from stemns_plugin.settings import Settings, read_settings
from stemns_plugin.suffix_router import SuffixRouter

OK, FAILED, USAGE = 0, 1, 2


async def serve(settings: Settings) -> None:
    """Run the plugins and the controller until cancelled; raises IsoproxyError."""
    async with contextlib.AsyncExitStack() as stack:
        hosts: dict[tuple[str, ...], PluginHost] = {}
        for command in set(settings.services.values()):  # one process, whatever its suffixes
            host = PluginHost(command, Environment(state=settings.state))
            hosts[command] = await stack.enter_async_context(host)
        router = SuffixRouter(
            {suffix: hosts[command] for suffix, command in settings.services.items()},
            timeout=settings.timeout_s,
        )
        controller = Controller(settings.controller, router.is_ours, router.find)
        await _announced(controller.run(), controller, "stemns: streams are served")


async def filter_control(settings: Settings) -> None:
    """Run the control filter until cancelled; raises IsoproxyError or OSError."""
    if settings.control_filter is None:
        raise ConfigError(
            "stemns control-filter needs a section [control_filter] with 'listen'; see its help"
        )
    serving = ControlFilter(settings.control_filter)
    await _announced(serving.run(), serving, "stemns control-filter: streams are served")


async def _announced(
    running: Coroutine[Any, Any, None], what: Controller | ControlFilter, line: str
) -> None:
    """Run; print a line when streams are served for the first time."""

    async def announce() -> None:
        await what.first_ready.wait()
        print(line, flush=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(announce())
        group.create_task(running)


async def _until_signal(running: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stemns",
        description="Brings .bit and other names to programs that use Tor's own SocksPort, "
        "HTTPTunnelPort, TransPort and DNSPort.",
    )
    parser.add_argument(
        "command", nargs="?", choices=["run", "control-filter"], default="run",
        help="run: the controller (default); control-filter: a control port for workstations",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE",
        help="settings in TOML (default: /etc/isoproxy/stemns.toml if it is there)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `stemns` or `stemns control-filter`; returns the exit code."""
    options = argument_parser().parse_args(arguments)
    ResolverGuard().install()
    configure()
    try:
        settings = read_settings(options.config)
        running = filter_control if options.command == "control-filter" else serve
        asyncio.run(_until_signal(running(settings)))
    except ConfigError as error:
        print(f"stemns: {error}", file=sys.stderr)
        return USAGE
    except (IsoproxyError, OSError) as error:
        print(f"stemns: {error}", file=sys.stderr)
        return FAILED
    except BaseExceptionGroup as group:
        return _report(group)
    return OK


def _report(group: BaseExceptionGroup[BaseException]) -> int:
    """Say what ended the tasks; a defect is raised."""
    known, defects = group.split((IsoproxyError, OSError))
    if defects is not None or known is None:
        raise group
    for error in known.exceptions:
        print(f"stemns: {error}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
