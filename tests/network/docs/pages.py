"""Pages of the documentation: their fenced blocks and their links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.kit.repository import ROOT

HOWTO: Final = ROOT / "docs" / "howto"
_FENCE: Final = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_LINK: Final = re.compile(r"\]\((?!https?:)([^)#]+)")


def pages() -> list[Path]:
    """The how-to pages, by name."""
    return sorted(HOWTO.glob("*.md"))


def fenced(page: Path, info: str) -> list[str]:
    """The texts of the blocks whose opening fence says `info`."""
    found = _FENCE.finditer(page.read_text())
    return [match["text"] for match in found if match["info"] == info]


def links(page: Path) -> list[Path]:
    """The files that `page` links to."""
    return [(page.parent / target).resolve() for target in _LINK.findall(page.read_text())]
