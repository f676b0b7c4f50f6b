"""What a stream process says, as JSON (RFC 8259) of which nothing is believed unread.

A stream process reads what clients send, so the main process judges it like any input:
every value is read by one of these functions.  Each raises ValueError for anything but what
it is asked for, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from isoproxy.errors import PolicyRefusal
from isoproxy.net.target import Target

MAX_COUNT: Final = 1 << 63
MAX_SECONDS: Final = 1e12
_T = TypeVar("_T")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def parse(message: bytes) -> dict[str, Any]:
    """The object in a message."""
    try:
        value = _DECODER.decode(message.decode())
    except RecursionError:
        raise ValueError("too deep") from None
    return table(value)


def table(value: object) -> dict[str, Any]:
    """An object; its keys are text, as JSON has it."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def array(value: object, length: int | None = None) -> list[Any]:
    """An array, of `length` elements if that is given."""
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError("not such an array")
    return value


def count(value: object) -> int:
    """A number of things."""
    if type(value) is not int or not 0 <= value < MAX_COUNT:
        raise ValueError("not a count")
    return value


def seconds(value: object) -> float:
    """A finite time in seconds, not negative."""
    if type(value) not in (int, float) or not 0 <= value < MAX_SECONDS:  # type: ignore[operator]
        raise ValueError("not a time")
    return float(value)  # type: ignore[arg-type]


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def text(value: object, limit: int) -> str:
    """A text of at most `limit` characters."""
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError("not such a text")
    return value


def raw(value: object, limit: int) -> bytes:
    """At most `limit` bytes, written in hexadecimal digits."""
    return bytes.fromhex(text(value, 2 * limit))


def optional(read: Callable[[Any], _T], value: object) -> _T | None:
    """What `read` makes of a value that may be null."""
    return None if value is None else read(value)


def target(host: object, port: object) -> Target:
    """A destination."""
    try:
        return Target.parse(text(host, 255), count(port))
    except PolicyRefusal:
        raise ValueError("not a destination") from None
