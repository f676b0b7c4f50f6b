"""docs/architecture.md and the tree agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.repository import ROOT
from tests.unit.test_house import PACKAGES, modules

PAGES = ("docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md", "docs/decisions")
_PATH = re.compile(r"`((?:[a-z0-9_.]+/)+(?:[a-z0-9_]+\.[a-z]+)?)`")
"""Of this tree, from its root: `isoproxy/net/`, `tests/unit/test_house.py`."""
_MODULE = re.compile(r"\(`([a-z0-9_]+(?:\.[a-z0-9_]+)*)`\)")


def written(page: str) -> str:
    path = ROOT / page
    files = sorted(path.glob("*.md")) if path.is_dir() else [path]
    return "\n".join(file.read_text() for file in files)


def folders() -> set[str]:
    """Those with modules, the packages themselves too."""
    return {f"{file.parent}/" for file in modules()} - {"isoproxy/"}


def test_every_room_is_named() -> None:
    table = re.findall(r"^\| `([^`]+)` \|", written("docs/architecture.md"), re.MULTILINE)
    missing = folders() - set(table) - {"isoproxy/observe/page/"}
    assert missing == set()
    single = {str(file) for file in modules() if file.parent == Path("isoproxy")}
    assert single - {"isoproxy/__init__.py", "isoproxy/__main__.py", "isoproxy/multiaddr.py"} <= {
        *table
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page: str) -> None:
    paths = _PATH.findall(written(page))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert paths or page == "docs/glossary.md"


def test_where_words_live_exists() -> None:
    places = _MODULE.findall(written("docs/glossary.md"))
    assert len(places) > 20
    for place in places:
        roots = [ROOT, *(ROOT / package for package in PACKAGES)]
        path = place.replace(".", "/")
        assert any((root / path).is_dir() or (root / f"{path}.py").is_file() for root in roots), (
            place
        )
