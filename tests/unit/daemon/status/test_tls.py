"""What `isoproxy tls status` is told: kinds and counts."""

from __future__ import annotations

from datetime import UTC, datetime

from isoproxy.config import load
from isoproxy.daemon.status.tls import tls_status
from isoproxy.tls.certificates import Issuer
from isoproxy.tls.outcome import EXPLANATIONS, TlsOutcome

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def test_what_became_of_streams() -> None:
    config = load(None, ["tls.enabled=true", "listener.0.tls=true"]).config
    issuer = Issuer.root(NOW).intermediate(NOW)
    answer = tls_status(config, issuer, {TlsOutcome.ONION: 3, TlsOutcome.NO_RECORD: 0})
    assert answer["enabled"] is True
    assert answer["listeners"] == ["default"]
    assert answer["intermediate_ends"] == "2026-12-15T00:00:00+00:00"
    explanation = EXPLANATIONS[TlsOutcome.ONION]
    assert answer["streams"] == [{"outcome": "onion", "count": 3, "explanation": explanation}]


def test_off_is_off() -> None:
    answer = tls_status(load(None).config, None, {})
    assert answer == {
        "enabled": False,
        "listeners": [],
        "intermediate_ends": None,
        "streams": [],
    }
