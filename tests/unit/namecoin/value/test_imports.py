from __future__ import annotations

from typing import Any

import pytest

from isoproxy.namecoin.value.imports import import_statements


@pytest.mark.parametrize(
    ("written", "statements", "wrong"),
    [
        ("dd/x", [(1, (b"dd/x", ""))], []),
        (["dd/x", "a.b"], [(1, (b"dd/x", "a.b"))], []),
        (["dd/x", "dd/y"], [(1, (b"dd/x", "")), (2, (b"dd/y", ""))], []),
        (["dd/x", "", ""], [], [1]),
        (["dd/x", "dd/y", ""], [(1, (b"dd/x", "")), (2, (b"dd/y", ""))], [3]),
        ([["dd/x", "a", "junk"]], [(1, (b"dd/x", "a"))], []),
        ([["dd/x"], 5, ["dd/y", "*"]], [(1, (b"dd/x", "")), (3, (b"dd/y", "*"))], [2]),
        ([["dd/x", "a b"]], [], [1]),
        (["\ud800"], [], [1]),
        (["d" * 256], [], [1]),
        ([], [], []),
        (7, [], [1]),
        ({"dd/x": ""}, [], [1]),
    ],
)
def test_statements_and_what_is_left_out(
    written: Any, statements: list[Any], wrong: list[int]
) -> None:
    problems: list[str] = []
    assert list(import_statements("import", written, problems)) == statements
    assert problems == [
        f"import: entry {number} is not a name, or a name and a selector" for number in wrong
    ]
