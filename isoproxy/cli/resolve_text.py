"""What `isoproxy resolve` and `isoproxy dns dump` print, of the data that they got."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, TextIO

from isoproxy.errors import ErrorKind

OK, FAILED, USAGE = 0, 1, 2
_NOT_A_NAME: Final = (
    "expected a name under bit, such as example.bit; programs have other names resolved by Tor "
    "itself, at isoproxy's port"
)


def print_answer(
    answer: Mapping[str, Any], *, as_json: bool, out: TextIO | None, err: TextIO | None
) -> int:
    """Print an answer of `daemon.resolve`; returns the exit code.

    The answer goes to `out`, or with `as_json` one JSON object in any case; what went wrong
    goes to `err`.
    """
    zone, resolution = answer.get("zone"), answer.get("resolution")
    if as_json:
        print(json.dumps(zone or resolution), file=out)
    elif zone is not None:
        for line in zone_lines(zone):
            print(line, file=out)
        for line in problem_lines(zone):
            print(line, file=err)
    elif resolution is not None and resolution["target"] is not None:
        print(resolution["target"], file=out)
    if zone is not None or resolution is None or resolution["status"] == "ok":
        return OK
    not_a_name = resolution["reason"] == ErrorKind.NAME_SYNTAX.value
    problem = _NOT_A_NAME if not_a_name else answer["problem"]
    print(f"isoproxy resolve: {problem}", file=err)
    return USAGE if not_a_name else FAILED


def zone_lines(zone: Mapping[str, Any]) -> Iterator[str]:
    """A zone in the form of a zone file (RFC 1035 §5.1); what DNS has no record for is a comment.

    `zone` is what `Zone.as_json` gives.
    """
    yield f"; height {zone['height']}, expires in {zone['expires_in']} blocks, {zone['evidence']}"
    for node in zone["names"]:
        owner = node["name"]
        for record in node["records"]:
            yield f"{owner}. IN {record['type']} {record['data']}"
        for item in ("tor", "i2p"):
            for address in node[item]:
                yield f"; {owner}. {item} {address}"


def problem_lines(zone: Mapping[str, Any]) -> Iterator[str]:
    """Each entry of a zone that was left out, and why, as comments."""
    for node in zone["names"]:
        for problem in node["problems"]:
            yield f"; {node['name']}. {problem}"
