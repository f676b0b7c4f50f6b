"""Kinds of failure are metric labels: one each, and no other characters."""

from __future__ import annotations

import re

from isoproxy.errors import ErrorKind


def test_each_kind_is_a_label_of_its_own() -> None:
    assert len({kind.value for kind in ErrorKind}) == len(ErrorKind.__members__)
    assert all(re.fullmatch(r"[a-z0-9_]+", kind.value) for kind in ErrorKind)
