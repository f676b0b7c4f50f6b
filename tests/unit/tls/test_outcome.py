"""Every end has a word for people, and alerts have the form of the RFC."""

from __future__ import annotations

import pytest

from isoproxy.tls.outcome import EXPLANATIONS, TlsOutcome, alert


def test_every_end_is_explained() -> None:
    assert set(EXPLANATIONS) == set(TlsOutcome)


@pytest.mark.parametrize("outcome", TlsOutcome)
def test_who_is_refused_gets_one_fatal_alert_and_who_is_not_gets_none(
    outcome: TlsOutcome,
) -> None:
    said = alert(outcome)
    assert bool(said) == EXPLANATIONS[outcome].startswith("refused")
    if said:
        assert said[:6] == bytes.fromhex("150303000202")
        assert len(said) == 7
