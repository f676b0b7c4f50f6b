"""`isoproxy resolve`: asks a running isoproxy, or resolves without one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from isoproxy.admin.client import NotRunning, ask
from isoproxy.cli.options import loaded
from isoproxy.cli.resolve_text import print_answer
from isoproxy.cli.secret_input import isolation_id, word
from isoproxy.config import Config, admin_address, state_directory
from isoproxy.errors import IsoproxyError
from isoproxy.namecoin.value.name import BitName

_ANSWER_S: Final = 90.0
"""Somewhat more than a resolution may take by default."""


def resolve_name(options: argparse.Namespace) -> int:
    config = loaded(options).config
    isolation = isolation_id(options)
    name = word(options.name, "name")
    answer = _answer(config, name, isolation, zone=options.records)
    return print_answer(answer, as_json=options.json, out=sys.stdout, err=sys.stderr)


def _answer(config: Config, name: str, isolation: str | None, *, zone: bool) -> Mapping[str, Any]:
    """From a running isoproxy, or without one."""
    try:
        BitName.parse(name)
    except IsoproxyError as error:  # without a tor, and without a wait for one
        from isoproxy.daemon.resolve import refusal

        return refusal(name, error)
    try:
        return ask(
            admin_address(config),
            "resolve",
            timeout_s=_ANSWER_S,
            name=name,
            isolation=isolation,
            zone=zone,
        )
    except NotRunning:
        return _resolve_alone(config, name, isolation, zone=zone)


def _resolve_alone(
    config: Config, name: str, isolation: str | None, *, zone: bool
) -> Mapping[str, Any]:
    import asyncio

    from isoproxy.daemon.compose.resolver import open_resolver
    from isoproxy.daemon.resolve import Question, resolve_for
    from isoproxy.daemon.settings.log import configure_log
    from isoproxy.net.reactor import ReactorLoop
    from isoproxy.net.resolver_guard import ResolverGuard

    configure_log(config)
    ResolverGuard().install()

    async def work() -> Mapping[str, Any]:
        async with open_resolver(config, state_directory(), sys.stderr) as (resolver, isolator):
            return await resolve_for(resolver, isolator, Question(name, isolation, zone))

    with asyncio.Runner(loop_factory=ReactorLoop) as runner:
        return runner.run(work())
