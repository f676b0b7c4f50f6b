"""`import` and `delegate`: which other values an object takes in, and where in them.

Theory of operation
    IFA-0001 has a list of statements, each a list of a name and a selector.  Owners also
    write one name, a list of names, or one statement without the list around it, as ncdns
    reads it: `["dd/x", "sub"]` is one statement where the second string has no slash, and so
    is no name.  What is wrong is left out and noted, by its number.
"""

from __future__ import annotations

from collections.abc import Iterator

from isoproxy.namecoin.limits import MAX_NAME_BYTES
from isoproxy.namecoin.value.json import Json
from isoproxy.net.host_name import is_label

Statement = tuple[bytes, str]
"""A name, and the selector in it: labels in DNS order, "" for all."""


def import_statements(
    item: str, written: Json, problems: list[str]
) -> Iterator[tuple[int, Statement]]:
    """The statements in `written`, the value of `item`, with their numbers from 1 on.

    What is left out is told in `problems`.
    """
    for number, statement in enumerate(_statements(written), 1):
        parsed = _statement(statement)
        if parsed is None:
            problems.append(f"{item}: entry {number} is not a name, or a name and a selector")
        else:
            yield number, parsed


def _statements(written: Json) -> list[Json]:
    match written:
        case [str(), str(selector), *more] if "/" not in selector and all(
            isinstance(one, str) for one in more
        ):
            return [None if more else written]
        case list():
            return [[entry] if isinstance(entry, str) else entry for entry in written]
    return [[written]]


def _statement(written: Json) -> Statement | None:
    match written:
        case [str(name)]:
            selector = ""
        case [str(name), str(selector), *_]:
            pass
        case _:
            return None
    try:
        key = name.encode()
    except UnicodeEncodeError:
        return None
    labels = selector.split(".") if selector else []
    if not 1 <= len(key) <= MAX_NAME_BYTES:
        return None
    return (key, selector) if all(one == "*" or is_label(one) for one in labels) else None
