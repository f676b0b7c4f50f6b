"""Test vectors: ours from tests/data, the BIP's own from $ISOPROXY_VECTORS."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from tests.kit.repository import DATA

OURS = DATA / "bip324"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def official(name: str) -> list[dict[str, str]]:
    """The rows of one of the BIP's files; skips the test where they are not at hand."""
    folder = os.environ.get("ISOPROXY_VECTORS")
    if not folder:
        pytest.skip("set ISOPROXY_VECTORS to the folder with BIP324's CSV files to run this")
    csv.field_size_limit(1 << 30)
    return rows(Path(folder) / name)
