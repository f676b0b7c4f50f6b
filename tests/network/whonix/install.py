"""The list of files that make a Whonix-Gateway isoproxy's, as the packaging reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.kit.repository import ROOT

LIST: Final = ROOT / "packaging" / "whonix" / "install"


def installed() -> list[tuple[Path, Path]]:
    """Each shipped file and the place it goes to."""
    found = []
    for line in LIST.read_text().splitlines():
        file, directory = line.split()
        found.append((ROOT / file, Path("/") / directory / Path(file).name))
    return found
