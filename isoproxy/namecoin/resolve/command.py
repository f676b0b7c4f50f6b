"""`isoproxy resolve`: one name, looked up once, printed for a person or a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from isoproxy.errors import ErrorKind, IsoproxyError, explanation
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.resolve.answer import NameAnswer, Status
from isoproxy.namecoin.resolve.resolver import Resolver, Zone
from isoproxy.namecoin.value.domain import Node
from isoproxy.namecoin.value.name import BitName

OK, FAILED, USAGE = 0, 1, 2
_NO_NAME: Final = (
    "expected a name under bit, such as example.bit; programs have other names resolved by Tor "
    "itself, at isoproxy's port"
)


async def resolve_command(
    resolver: Resolver,
    name: str,
    key: IsolationKey,
    *,
    as_json: bool = False,
    records: bool = False,
    out: TextIO,
    err: TextIO,
) -> int:
    """Resolve `name` under `key` and print the outcome; returns the exit code.

    Without `records` the answer goes to `out`, or with `as_json` one JSON object in any
    case; with `records` the whole zone of the name does, as zone-file lines or as JSON.
    What went wrong goes to `err`.
    """
    try:
        if records:
            zone = await resolver.zone(BitName.parse(name), key)
            lines = [json.dumps(_zone_json(zone))] if as_json else zone_lines(zone)
            _print(lines, out)
            if not as_json:
                _print(problems(zone.nodes), err)
            return OK
        answer = await resolver.resolve(BitName.parse(name), key)
    except IsoproxyError as error:
        return report(error, name, as_json=as_json, out=out, err=err)
    if as_json:
        _print([json.dumps(answer.as_json())], out)
    elif answer.target is not None:
        _print([answer.target], out)
    if answer.status is Status.OK:
        return OK
    if answer.reason is not None:
        _print([f"isoproxy resolve: {explanation(answer.reason)}"], err)
    return FAILED


def refusal(name: str) -> IsoproxyError | None:
    """Why nobody needs to be asked for `name`, if so."""
    try:
        BitName.parse(name)
    except IsoproxyError as error:
        return error
    return None


def report(
    error: IsoproxyError, name: str, *, as_json: bool, out: TextIO | None, err: TextIO | None
) -> int:
    """Print why there is no answer; returns the exit code."""
    if as_json:
        _print([json.dumps(NameAnswer.failure(name, error.kind).as_json())], out)
    if error.kind is ErrorKind.NAME_SYNTAX:
        _print([f"isoproxy resolve: {_NO_NAME}"], err)
        return USAGE
    _print([f"isoproxy resolve: {error}"], err)
    return FAILED


def _print(lines: Iterable[str], stream: TextIO | None) -> None:
    for line in lines:
        print(line, file=stream)


def zone_lines(zone: Zone) -> Iterator[str]:
    """The zone in the form of a zone file; what DNS has no record for is a comment."""
    found = zone.found
    yield f"; height {found.height}, expires in {found.expires_in} blocks, {found.evidence.value}"
    for node in zone.nodes:
        for rdatas in node.records.rdatas.values():
            for rdata in rdatas:
                yield f"{node.owner}. IN {rdata.rdtype.name} {rdata.to_text()}"
        for item in ("tor", "i2p"):
            for address in getattr(node.records, item):
                yield f"; {node.owner}. {item} {address}"


def _zone_json(zone: Zone) -> dict[str, object]:
    return {
        "value": zone.found.value.decode("utf-8", "backslashreplace"),
        "height": zone.found.height,
        "expires_in": zone.found.expires_in,
        "txid": zone.found.txid,
        "evidence": zone.found.evidence.value,
        "servers": list(zone.found.servers),
        "names": [
            {
                "name": node.owner,
                "records": [
                    {"type": rdata.rdtype.name, "data": rdata.to_text()}
                    for rdatas in node.records.rdatas.values()
                    for rdata in rdatas
                ],
                "tor": node.records.tor,
                "i2p": node.records.i2p,
                "problems": node.records.problems,
            }
            for node in zone.nodes
            if not node.records.is_empty or node.records.problems
        ],
    }


def problems(nodes: list[Node]) -> Iterator[str]:
    """Each entry that was left out, and why, as comments."""
    for node in nodes:
        for problem in node.records.problems:
            yield f"; {node.owner}. {problem}"
