"""A finding says what to do exactly when something is to be done."""

from __future__ import annotations

import pytest

from isoproxy.doctor.finding import Finding, Verdict, failed, ok


def test_the_line() -> None:
    assert str(ok("clock", "right")) == "ok       clock: right"
    assert str(failed("clock", "wrong", "set it")) == "failed   clock: wrong -> set it"


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.WARNING, Verdict.UNPROVEN])
def test_no_complaint_without_advice(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="what to do"):
        Finding("clock", verdict, "wrong")


def test_no_advice_without_complaint() -> None:
    with pytest.raises(ValueError, match="what to do"):
        Finding("clock", Verdict.OK, "right", "rejoice")
