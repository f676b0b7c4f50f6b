"""What a stream process says is believed only as far as it was read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.net.target import Target
from isoproxy.workers.checked import (
    MAX_COUNT,
    array,
    count,
    flag,
    optional,
    parse,
    raw,
    seconds,
    table,
    target,
    text,
)

READERS: list[Callable[[Any], object]] = [
    table,
    array,
    partial(array, length=2),
    count,
    seconds,
    flag,
    partial(text, limit=3),
    partial(raw, limit=3),
    partial(target, port=80),
    partial(target, "a.test"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 60_000,
        b'{"a": ' * 20_000,
    ],
)
def test_what_is_no_object_is_a_value_error_and_nothing_else(message: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        parse(message)


@given(st.binary())
def test_any_bytes_are_an_object_or_a_value_error(message: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse(message), dict)


@given(JSON)
def test_any_value_is_read_or_a_value_error(value: Any) -> None:
    for read in READERS:
        with contextlib.suppress(ValueError):
            read(value)


@pytest.mark.parametrize("value", [-1, MAX_COUNT, 1.0, True, "1", None])
def test_what_is_no_count(value: object) -> None:
    with pytest.raises(ValueError, match="count"):
        count(value)


@pytest.mark.parametrize("words", ["1e999", "-1", "true", '"1"', "null", "1e12"])
def test_a_time_is_finite_and_not_negative(words: str) -> None:
    with pytest.raises(ValueError, match="time"):
        seconds(json.loads(words))


def test_what_is_right_is_read() -> None:
    assert parse(b'{"a": [1]}') == {"a": [1]}
    assert (count(7), seconds(1), seconds(0.5), flag(True)) == (7, 1.0, 0.5, True)
    assert (text("abc", 3), raw("00ff", 2), array([1, 2], 2)) == ("abc", b"\0\xff", [1, 2])
    assert target("Host.test", 80) == Target.parse("host.test", 80)
    assert optional(count, None) is None
    assert optional(count, 1) == 1
