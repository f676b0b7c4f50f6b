"""Hostile JSON costs bounded time and gives one error."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.value.json import MAX_DEPTH, parse_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_was(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), limit=1_000_000) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b"[1,2",
        b'{"a":NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b'{"a":1} x',
        b'// a\n{"a":1}',
        b'"\x00"',
        b'"a\nb"',
        b"\xa1bipi192.0.2.1",
        b"[" * 600,
        b"[" * 500 + b"]" * 500,
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'"\\',
        b"[" * 100 + b'"' + b'\\"' * 400,
    ],
)
def test_what_is_not_json_in_utf8_is_an_invalid_value(data: bytes) -> None:
    with pytest.raises(NamingError) as caught:
        parse_json(data)
    assert caught.value.kind is ErrorKind.NAME_INVALID_VALUE


def test_of_duplicate_keys_the_last_one_counts() -> None:
    assert parse_json(b'{"ip":"192.0.2.1","ip":"192.0.2.2"}') == {"ip": "192.0.2.2"}


def test_huge_integers_are_read_within_bounds() -> None:
    digits = b"9" * 900
    assert parse_json(b"[" + digits + b"]") == [int(digits)]
    with pytest.raises(NamingError):
        parse_json(b"[" + b"9" * 100_000 + b"]", limit=1_000_000)


def test_depth_is_counted_outside_strings_only() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(deep)
    with pytest.raises(NamingError):
        parse_json(b"[" + deep + b"]")
    text = b'["' + b"[{" * 100 + b'\\"[[[","]]"]'
    assert parse_json(text) == json.loads(text)
    assert parse_json(b"[" + b"[]," * 200 + b"[]]") == [[]] * 201


def test_a_megabyte_is_refused_at_once_and_in_no_memory() -> None:
    bomb = b"[" * 1_000_000
    text = b'{"txt":"' + b"x" * 1_000_000 + b'"}'
    tracemalloc.start()
    before = time.process_time()
    for data in (bomb, text):
        with pytest.raises(NamingError):
            parse_json(data)
    assert time.process_time() - before < 0.05
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_quotes_without_end_are_scanned_in_linear_time() -> None:
    data = b"[" * 100 + b'"' + b'\\"' * 400_000
    before = time.process_time()
    with pytest.raises(NamingError):
        parse_json(data, limit=1_000_000)
    assert time.process_time() - before < 1.0


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_it_takes_what_the_library_takes_and_raises_nothing_else(data: bytes) -> None:
    try:
        parsed: object = parse_json(data, limit=1_000_000)
    except NamingError as error:
        parsed = error.kind
    try:
        expected: object = json.loads(data.decode("utf-8"), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        expected = ErrorKind.NAME_INVALID_VALUE
    assert parsed == expected
