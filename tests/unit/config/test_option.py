"""Readers of single settings: what they take, and what they say without quoting it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isoproxy.config.option import (
    FrozenMapping,
    Option,
    boolean,
    choice,
    endpoint,
    flags,
    host_and_port,
    integer,
    ip_network,
    login_at,
    mapping,
    matching,
    number,
    one_line,
    permissions,
    several,
)
from isoproxy.isolation import Isolate
from isoproxy.net.endpoint import Endpoint


@pytest.mark.parametrize(
    ("read", "raw", "value"),
    [
        (boolean, True, True),
        (integer(1, 9), 9, 9),
        (number(0, 1), 1, 1.0),
        (one_line, "a b", "a b"),
        (choice("a", "b"), "b", "b"),
        (endpoint, "[::1]:1", Endpoint("::1", 1)),
        (flags, ["DestPort", "IsolateDestAddr"], Isolate.DEST_PORT | Isolate.DEST_ADDR),
        (permissions, "0660", 0o660),
        (several(integer(1, 9)), [1, 2], (1, 2)),
        (ip_network, "10.0.0.0/8", "10.0.0.0/8"),
        (host_and_port, "a.onion:80", "a.onion:80"),
        (mapping(one_line, boolean), {"a": True}, {"a": True}),
    ],
)
def test_what_is_right_is_taken(
    read: Callable[[object], object], raw: object, value: object
) -> None:
    assert read(raw) == value


@pytest.mark.parametrize(
    ("read", "raw"),
    [
        (boolean, 1),
        (integer(1, 9), 10),
        (integer(0, 9), True),
        (number(0, 1), "marked"),
        (one_line, "marked\nmarked"),
        (choice("a", "b"), "marked"),
        (matching("[a-z]+", "letters"), "marked;"),
        (matching("[a-z]+", "letters"), " marked"),
        (endpoint, "none"),
        (flags, ["marked"]),
        (permissions, "marked"),
        (permissions, 0o660),
        (several(integer(1, 9)), [1, 1]),
        (ip_network, "marked/8"),
        (host_and_port, "marked:99999"),
        (mapping(one_line, boolean), ["marked"]),
        (login_at, "marked@127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_told_without_being_quoted(
    read: Callable[[object], object], raw: object
) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read(raw)
    assert "marked" not in str(caught.value)


def test_a_login_hides_its_password() -> None:
    login = login_at("user:marked:@x@127.0.0.1:1")
    assert (login.username, login.password) == ("user", "marked:@x")
    assert "marked" not in repr(login)


def test_a_choice_is_told_once() -> None:
    words = choice("a", "b")
    assert Option('Either "a" or "b".', words).sentence == 'Either "a" or "b".'
    assert Option("How.", words).sentence == 'How. One of "a", "b".'
    assert Option("How many.", integer(1, 2)).sentence == "How many."


def test_a_mapping_does_not_change() -> None:
    frozen = FrozenMapping({"a": 1})
    with pytest.raises(TypeError):
        frozen["a"] = 2
    with pytest.raises(TypeError):
        del frozen["a"]
    assert hash(frozen) == hash(FrozenMapping({"a": 1}))
