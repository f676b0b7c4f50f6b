"""Positions of keys, against documents that exercise the grammar of TOML."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from isoproxy.config.lines import Path, key_lines


def test_strings_comments_and_brackets_are_stepped_over() -> None:
    document = (
        "# [not.a.table]\n"
        'top = """\n[fake]\nx = 1\\""" """\n'
        "'quoted key' = '''\n[fake2]\n'''\n"
        "list = [ # ]\n  '[', \"]\",\n  { a = 1 },\n]\n"
        'a . b."c.d" = { x = [1,\n2] }  # y = 3\n'
        "[t.'u v']\n"
        "k = 1979-05-27T07:32:00Z\n"
        "[[many]]\nk = 1\n[many.inner]\nz = 1\n[[many.deep]]\nq = 1\n"
        "[[many]]\nk = 2\n[[many.deep]]\nq = 2\n[[many.deep]]\nq = 3"
    )
    tomllib.loads(document)
    assert key_lines(document) == {
        ("top",): 2,
        ("quoted key",): 5,
        ("list",): 8,
        ("a",): 12,
        ("a", "b"): 12,
        ("a", "b", "c.d"): 12,
        ("t",): 14,
        ("t", "u v"): 14,
        ("t", "u v", "k"): 15,
        ("many",): 16,
        ("many", 0): 16,
        ("many", 0, "k"): 17,
        ("many", 0, "inner"): 18,
        ("many", 0, "inner", "z"): 19,
        ("many", 0, "deep"): 20,
        ("many", 0, "deep", 0): 20,
        ("many", 0, "deep", 0, "q"): 21,
        ("many", 1): 22,
        ("many", 1, "k"): 23,
        ("many", 1, "deep"): 24,
        ("many", 1, "deep", 0): 24,
        ("many", 1, "deep", 0, "q"): 25,
        ("many", 1, "deep", 1): 26,
        ("many", 1, "deep", 1, "q"): 27,
    }


VALUES = st.sampled_from(
    [
        "1",
        "''",
        '"\\""',
        '"""\n"\n"""',
        "[\n1,\n]",
        "'''\na = 1\n'''",
        "{ q = '}' }",
        "[[1], [']']]",
    ]
)


@given(st.lists(st.tuples(VALUES, st.sampled_from(["", " # c", "\n", "\n# x = 1\n"])), max_size=12))
def test_each_key_is_found_on_its_own_line(items: list[tuple[str, str]]) -> None:
    document, expected = "", {}
    for index, (value, after) in enumerate(items):
        expected[(f"k{index}",)] = document.count("\n") + 1
        document += f"k{index} = {value}{after}\n"
    tomllib.loads(document)
    found: dict[Path, int] = key_lines(document)
    assert found == expected


@given(st.text(max_size=200))
def test_it_ends_on_any_text(document: str) -> None:
    """A document that is not TOML never comes here; if one did, it must not hang."""
    key_lines(document)
