"""Packages of npm that tests use, as `package-lock.json` beside this has them, hashes included."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.kit.repository import ROOT

_LOCK: Final = Path(__file__).parent
_INSTALLED: Final = ROOT / ".cache" / "npm"


def npm_package(name: str) -> Path:
    """Where a package is, fetched if need be; the test is skipped where that cannot be."""
    lock, stamp = (_LOCK / "package-lock.json").read_text(), _INSTALLED / "installed"
    if not stamp.exists() or stamp.read_text() != lock:
        if shutil.which("npm") is None:
            pytest.skip(f"npm is not installed, so {name} cannot be fetched")
        _INSTALLED.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(_LOCK / file, _INSTALLED)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=_INSTALLED, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            pytest.skip(f"{name} could not be fetched: {done.stderr.strip()[-200:]}")
        stamp.write_text(lock)
    return _INSTALLED / "node_modules" / name
