"""`isoproxy resolve` and `isoproxy names`: Namecoin names from the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict

from isoproxy.admin import Answer, NotRunning, ask
from isoproxy.cli.options import Commands, add_configuration, loaded
from isoproxy.cli.resolve_text import print_answer
from isoproxy.cli.secret_input import WARNING, add_isolation, isolation_id, word
from isoproxy.config import Config, LoginAt, admin_address, state_directory
from isoproxy.daemon.compose.names import rpc_client
from isoproxy.daemon.compose.resolver import open_resolver
from isoproxy.daemon.resolve import Question, refusal, resolve_for
from isoproxy.daemon.settings.log import configure_log
from isoproxy.daemon.settings.names import names_directory
from isoproxy.errors import IsoproxyError, OperationError
from isoproxy.namecoin.chain.anchor import anchor_from_core, best_anchor, write_anchor
from isoproxy.namecoin.chain.params import NETWORKS, Anchor
from isoproxy.namecoin.resolve.resolver import DEADLINE_S
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.reactor import ReactorLoop
from isoproxy.net.resolver_guard import ResolverGuard

_ANSWER_S = DEADLINE_S + 30.0


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
    config = loaded(options).config
    isolation = isolation_id(options)
    question = Question(word(options.name, "name"), isolation, zone=options.records)
    return print_answer(
        _answer(config, question), as_json=options.json, out=sys.stdout, err=sys.stderr
    )


def _answer(config: Config, question: Question) -> Answer:
    """From a running isoproxy, or without one."""
    try:
        BitName.parse(question.name)
    except IsoproxyError as error:  # without a tor, and without a wait for one
        return refusal(question.name, error)
    try:
        return ask(admin_address(config), "resolve", timeout_s=_ANSWER_S, **asdict(question))
    except NotRunning:
        return _resolve_alone(config, question)


def _resolve_alone(config: Config, question: Question) -> Answer:
    configure_log(config)
    ResolverGuard().install()

    async def work() -> Answer:
        async with open_resolver(config, state_directory(), sys.stderr) as (resolver, isolator):
            return await resolve_for(resolver, isolator, question)

    with asyncio.Runner(loop_factory=ReactorLoop) as runner:
        return runner.run(work())


def renew_anchor(options: argparse.Namespace) -> int:
    config = loaded(options).config
    network = NETWORKS[config.names.electrum.network]
    anchor = asyncio.run(_anchor(config))
    directory = names_directory(state_directory())
    known = best_anchor(network, directory)
    if anchor.height <= known.height:
        print(f"the anchor at block {known.height} is as new; nothing to do")
        return 0
    write_anchor(directory, network, anchor)
    print(
        f"the anchor is now block {anchor.height}, {anchor.block_hash[::-1].hex()}; "
        "a running isoproxy uses it after a restart"
    )
    return 0


async def _anchor(config: Config) -> Anchor:
    rpc = config.names.rpc
    client = rpc_client(rpc, LoginAt(rpc.address), core=True)

    async def call(method: str, params: list[Json]) -> Json:
        return await client.call(method, params)

    try:
        return await anchor_from_core(call, NETWORKS[config.names.electrum.network])
    except RpcError as error:
        raise OperationError(
            f"the program at names.rpc.address refused ({error}); is it a Namecoin Core?"
        ) from None
    except IsoproxyError as error:
        raise OperationError(str(error)) from None
    finally:
        client.close()
