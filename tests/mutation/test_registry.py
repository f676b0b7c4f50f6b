"""The threat model, the mutants and the tests that hold its claims name each other rightly."""

from __future__ import annotations

import textwrap

import pytest

from tests.kit.repository import ROOT
from tests.mutation.registry import (
    EVIDENCE,
    THREAT_MODEL,
    Mutant,
    claims,
    is_defined,
    killers_by_claim,
    mutants,
)

MUTANT = Mutant("C1", "it breaks", "a.py", "yes", "no", "tests/test_a.py::test_it")


def test_every_claim_has_mutants_and_names_the_tests_that_kill_them() -> None:
    assert claims((ROOT / THREAT_MODEL).read_text()) == killers_by_claim(mutants())


def test_every_mutant_can_be_made() -> None:
    for mutant in mutants():
        assert mutant.applied_to((ROOT / mutant.file).read_text())


def test_every_test_that_is_named_exists() -> None:
    assert [mutant.test for mutant in mutants() if not is_defined(mutant.test)] == []


def test_the_evidence_is_of_these_mutants() -> None:
    lines = (ROOT / EVIDENCE).read_text().splitlines()
    shown = {line for line in lines if line.startswith("| C")}
    assert shown == {
        f"| {one.claim} | {one.breaks} | `{one.file}` | `{one.test}` |" for one in mutants()
    }


@pytest.mark.parametrize("source", ["no", "yes yes"])
def test_a_place_that_is_not_there_once_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        MUTANT.applied_to(source)


def test_claims_end_where_the_next_begins_or_a_heading() -> None:
    text = textwrap.dedent(
        """\
        **C1.** One. `tests/a.py::test_a`

        - `tests/b.py::test_b`

        **C2.** Two.

        ### Other
        `tests/c.py::test_c`
        """
    )
    assert claims(text) == {"C1": {"tests/a.py::test_a", "tests/b.py::test_b"}, "C2": set()}
    with pytest.raises(ValueError, match="twice"):
        claims("**C1.** a\n**C1.** b\n")


def test_what_is_no_test_is_not_defined() -> None:
    here = "tests/mutation/test_registry.py"
    assert is_defined(f"{here}::test_what_is_no_test_is_not_defined")
    assert not is_defined(f"{here}::MUTANT")
    assert not is_defined(f"{here}::test_that_nobody_wrote")
    assert not is_defined("tests/mutation/test_nothing.py::test_it")
