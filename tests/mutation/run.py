"""Makes each mutant of the registry in a copy of the tree, and sees whether its test notices.

Theory of operation
    The tree is copied to a temporary folder.  There every test that the registry names
    must pass; then one mutant after the other is made, its test run alone, and the file
    put back.  A mutant is *killed* when the test fails with an assertion: an import error,
    a timeout or a skip says nothing about the claim.

Invariants
    The tree itself is never touched.  Each file that is written has a time of its own, so
    that no interpreter takes an older one's compiled code for it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.kit.repository import ROOT
from tests.mutation.registry import Mutant

TEST_S: Final = 120
"""Seconds a single test may take; what takes longer has not noticed anything."""
_ALL_S: Final = 1200
_NOT_COPIED: Final = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")


@dataclass(frozen=True)
class Outcome:
    """How a mutant fared: `ending` is what its test came to, "assertion" where it noticed."""

    mutant: Mutant
    ending: str

    @property
    def killed(self) -> bool:
        return self.ending == "assertion"


class Copy:
    """A copy of the tree to make mutants in; a context manager."""

    def __init__(self, source: Path = ROOT) -> None:
        self._source = source
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        self.root = Path(self._folder.name) / "tree"
        self._times = itertools.count(1_000_000_000)

    def __enter__(self) -> Self:
        shutil.copytree(self._source, self.root, ignore=_NOT_COPIED)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def failures(self, tests: Sequence[str]) -> dict[str, str]:
        """Those of `tests` that do not pass here, with what they came to instead."""
        endings = self._endings(tests, _ALL_S)
        failed = {}
        for test in tests:
            bad = [ended for ended in endings.get(test, ["not run"]) if ended != "passed"]
            if bad:
                failed[test] = bad[0]
        return failed

    def try_out(self, mutant: Mutant) -> Outcome:
        """Make `mutant`, run its test, and put the file back."""
        file = self.root / mutant.file
        original = file.read_text()
        self._write(file, mutant.applied_to(original))
        try:
            endings = self._endings([mutant.test], TEST_S)
        finally:
            self._write(file, original)
        bad = [ended for ended in endings.get(mutant.test, ["not run"]) if ended != "passed"]
        return Outcome(mutant, bad[0] if bad else "survived")

    def _write(self, file: Path, text: str) -> None:
        file.write_text(text)
        when = next(self._times)
        os.utime(file, (when, when))

    def _endings(self, tests: Sequence[str], seconds: float) -> dict[str, list[str]]:
        """How `tests` ended; a run that did not come to its end leaves none."""
        verdict = self.root / "verdict.json"
        verdict.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
        ]
        command += ["-p", "tests.mutation.verdict", "--verdict", str(verdict)]
        command += [f"--timeout={TEST_S}", *tests]
        if len(tests) > 1:
            command.remove("-x")
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        with (self.root / "pytest.log").open("wb") as log:
            try:
                subprocess.run(
                    command, cwd=self.root, env=environment, timeout=seconds + 60,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return {}
        try:
            endings: dict[str, list[str]] = json.loads(verdict.read_text())
        except FileNotFoundError:
            return {}
        return endings
