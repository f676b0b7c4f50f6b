"""Which keys are over: bounded, by label, and the same in every process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import OperationError
from isoproxy.isolation.renewals import MAX_RENEWALS, Renewals

labels = st.binary(min_size=3, max_size=3).map(bytes.hex)


@given(st.sets(labels, max_size=8))
def test_another_process_has_the_same(over: set[str]) -> None:
    here, there = Renewals(), Renewals()
    there.add("abcdef")
    for label in over:
        here.add(label)
    there.import_state(here.export_state())
    assert len(there.labels) == len(over)
    assert all(label in there for label in over)
    assert there.export_state() == here.export_state()


@pytest.mark.parametrize(
    "text", ["", "abc", "abcdef0", "ABCDEF", "abcdeg", "abcde\u0663", "abcdef\n"]
)
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(OperationError, match="named by its label"):
        Renewals().add(text)


def test_they_are_bounded_and_a_new_epoch_makes_room() -> None:
    renewals = Renewals()
    for number in range(MAX_RENEWALS):
        renewals.add(f"{number:06x}")
    with pytest.raises(OperationError, match="isoproxy newnym"):
        renewals.add("ffffff")
    assert len(renewals.labels) == MAX_RENEWALS
    renewals.clear()
    renewals.add("ffffff")
    assert len(renewals.labels) == 1


def test_a_key_is_over_once() -> None:
    renewals = Renewals()
    renewals.add("abcdef")
    with pytest.raises(OperationError, match="already"):
        renewals.add("abcdef")
