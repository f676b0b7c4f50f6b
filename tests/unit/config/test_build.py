"""From a tree of settings to a configuration, with where each was written."""

from __future__ import annotations

import pytest

from isoproxy.config.build import all_keys, build
from isoproxy.config.sources import read_document


def built(document: str) -> tuple[object, dict[str, str], list[str]]:
    problems: list[str] = []
    config, places = build(read_document("f", document.encode(), problems), problems)
    return config, places, problems


def test_every_setting_keeps_where_it_was_written() -> None:
    _, places, problems = built("[tor]\nmode = 'system'\n[[listener]]\nname = 'a'\n")
    assert problems == []
    assert places["tor.mode"] == "f:2"
    assert places["listener.0.name"] == "f:4"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("tor = 1\n", "f:1: tor: expected a table, [tor]"),
        ("listener = 1\n", "f:1: listener: expected an array of tables, [[listener]]"),
        ("[tor]\nmode = 1\n", "f:2: tor.mode: expected one of"),
        ("[[listener]]\nsocks = 1\n", "f:2: listener.socks: expected a line"),
        ("[[listener]]\nsocks = '1 IsolateDestAddr'\nisolate = []\n", "keep one of them"),
        ("[tor]\nmodus = 1\n", 'unknown key "tor.modus" (did you mean tor.mode?)'),
    ],
)
def test_what_is_wrong_is_told_with_its_line(document: str, problem: str) -> None:
    _, _, problems = built(document)
    assert len(problems) == 1
    assert problem in problems[0]


def test_keys_have_no_indices_and_are_all_different() -> None:
    keys = all_keys()
    assert len(set(keys)) == len(keys)
    assert {"tor.mode", "listener.preset", "bitcoin.proxy.address"} <= set(keys)
