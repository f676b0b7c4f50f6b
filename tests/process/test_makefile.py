"""What the targets of the Makefile install, as `make -n` tells it; nothing is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.repository import ROOT


def recipe(target: str, environment: Path) -> list[str]:
    """The lines that `make target` would run where there is no virtual environment yet."""
    done = subprocess.run(
        ["make", "--dry-run", target, f"VENV={environment}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.replace("\\\n", "").splitlines()


@pytest.mark.parametrize("target", ["run", "demo", "lint", "fire"])
def test_all_that_is_installed_is_locked_with_what_builds_it(tmp_path: Path, target: str) -> None:
    """`pip install --editable .` fetched a build backend, and its libraries, without hashes."""
    installs = [line for line in recipe(target, tmp_path / "venv") if "pip install" in line]
    assert installs
    for line in installs:
        assert "--no-build-isolation" in line
        assert "--require-hashes -r requirements/" in line or line.endswith(
            "--no-deps --editable ."
        )


@pytest.mark.parametrize(("target", "packages"), [("run", {"run"}), ("demo", {"run", "demo"})])
def test_who_runs_it_gets_nothing_of_its_tests(
    tmp_path: Path, target: str, packages: set[str]
) -> None:
    lines = recipe(target, tmp_path / "venv")
    assert {line.split()[-1] for line in lines if "system-packages" in line} == packages
    locks = {word for line in lines for word in line.split() if word.startswith("requirements/")}
    assert locks == {"requirements/package.txt", "requirements/runtime.txt"}


def test_the_demonstration_needs_no_library_but_the_runtimes() -> None:
    """It runs where `make test` never was."""
    code = (
        "import sys\n"
        "for name in ('pytest', 'hypothesis'): sys.modules[name] = None\n"
        "import tests.kit.demo"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
