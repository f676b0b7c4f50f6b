"""The benchmark of floods runs, and says what it should: that its own measure is not broken."""

from __future__ import annotations

import subprocess
import sys

from tests.kit.repository import ROOT


def test_a_short_run_floods_both_programs_and_measures_both_kinds() -> None:
    words = ["--pairs", "1", "--seconds", "0.5", "--processes", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.flood", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode in (0, 1), done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    for title in ("undisturbed", "flooded"):
        (row,) = (line for line in lines if line[:1] == [title] and "MB/s" in line)
        assert float(row[1]) > 0
    for kind in ("address", ".bit"):
        (row,) = (line for line in lines if line[:2] == [kind, "p50"])
        assert int(row[2]) >= 20
        assert 0 < float(row[3]) < float(row[5])
