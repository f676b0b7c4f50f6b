"""A mutant is killed by an assertion alone; the tree is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.repository import ROOT
from tests.mutation.registry import Mutant
from tests.mutation.run import Copy

TEST = "tests/test_answer.py::test_it"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one module and one test, with the plugin that writes verdicts."""
    (tmp_path / "answer.py").write_text("import math\n\nANSWER = 42\n")
    (tmp_path / "tests" / "mutation").mkdir(parents=True)
    for name in ("__init__.py", "mutation/__init__.py"):
        (tmp_path / "tests" / name).touch()
    plugin = (ROOT / "tests" / "mutation" / "verdict.py").read_text()
    (tmp_path / "tests" / "mutation" / "verdict.py").write_text(plugin)
    (tmp_path / "tests" / "test_answer.py").write_text(
        "from answer import ANSWER\n\ndef test_it():\n    assert ANSWER / 1 == 42\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after", "ending"),
    [
        ("42", "41", "assertion"),
        ("42", "42.0", "survived"),
        ("42", "'42'", "TypeError"),
        ("import math", "import no_such_module", "not run"),
    ],
)
def test_endings(tree: Path, before: str, after: str, ending: str) -> None:
    mutant = Mutant("C1", "it breaks", "answer.py", before, after, TEST)
    with Copy(tree) as copy:
        outcome = copy.try_out(mutant)
        assert (copy.root / "answer.py").read_text() == (tree / "answer.py").read_text()
    assert outcome.ending == ending
    assert outcome.killed == (ending == "assertion")
    assert not copy.root.exists()


def test_a_test_that_does_not_pass_unchanged_is_found(tree: Path) -> None:
    (tree / "answer.py").write_text("ANSWER = 1\n")
    with Copy(tree) as copy:
        assert copy.failures([TEST]) == {TEST: "assertion"}
