"""Namecoin's test suite for domain values (github.com/hlandau/nctestsuite), read from its file.

Its path is in NCTESTSUITE_PATH; nothing of it is in this tree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Case:
    """One entry: values by name (the first is the one asked for), and the records they give."""

    title: str
    values: dict[str, bytes] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)


def cases() -> list[Case]:
    """All entries of the suite; skips the test where there is none."""
    path = os.environ.get("NCTESTSUITE_PATH")
    if path is None:
        pytest.skip("NCTESTSUITE_PATH is not set: clone nctestsuite, and name its directory")
    found: list[Case] = []
    is_open = False
    lines = iter((Path(path) / "testsuite.txt").read_text().splitlines())
    for line in lines:
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if word == "IN":
            if not is_open:
                found.append(Case(rest))
            is_open = True
            name = next(lines)
            found[-1].values[name] = next(lines).encode()
        elif word == "OUT":
            is_open = False
        else:
            found[-1].records.append(rest if word in ("AN", "NS", "AR") else line)
    return found
