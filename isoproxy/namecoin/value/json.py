"""A name's value as JSON, parsed within bounds.

Theory of operation
    Values are written by remote parties.  The standard library's parser does the work; what
    it is lenient about is refused first or through its hooks.  RFC 8259 JSON in UTF-8
    and nothing else: no NaN, no Infinity, no byte order mark, no comments.  Of duplicate
    keys the last one counts, as everybody else's parser has it.

Invariants
    Time and memory are linear in the input, whose length is bounded; nesting is bounded
    before the recursive parser sees it.  Whatever is wrong raises
    NamingError(NAME_INVALID_VALUE) and nothing else.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.limits import MAX_VALUE_BYTES

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

MAX_DEPTH: Final = 64
"""Arrays and objects inside each other; a `map` within a `map` takes two."""

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_PARSER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(data: bytes, *, limit: int = MAX_VALUE_BYTES) -> Json:
    """The JSON value in `data`, which has at most `limit` bytes.

    Raises:
        NamingError: NAME_INVALID_VALUE, too long, too deep, not UTF-8 or not JSON.
    """
    if len(data) > limit or _is_deeper_than(data, MAX_DEPTH):
        raise NamingError(kind=ErrorKind.NAME_INVALID_VALUE)
    try:
        value: Json = _PARSER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise NamingError(kind=ErrorKind.NAME_INVALID_VALUE) from None
    return value


def _is_deeper_than(data: bytes, depth: int) -> bool:
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    level = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"[{":
            level += 1
            if level > depth:
                return True
        elif byte in b"]}":
            level -= 1
    return False
