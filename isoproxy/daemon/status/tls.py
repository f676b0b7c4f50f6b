"""How HTTPS for `.bit` stands: which listeners, until when, and what became of its streams."""

from __future__ import annotations

from collections.abc import Mapping

from isoproxy.admin.server import Answer
from isoproxy.config import Config
from isoproxy.tls.certificates import Issuer
from isoproxy.tls.outcome import EXPLANATIONS, TlsOutcome


def tls_status(config: Config, issuer: Issuer | None, https: Mapping[TlsOutcome, int]) -> Answer:
    """The answer to `isoproxy tls status`: kinds and counts, no names."""
    return {
        "enabled": issuer is not None,
        "listeners": [listener.name for listener in config.listener if listener.tls],
        "intermediate_ends": None if issuer is None else issuer.ends.isoformat(),
        "streams": [
            {"outcome": outcome.value, "count": https[outcome], "explanation": explanation}
            for outcome, explanation in EXPLANATIONS.items()
            if https.get(outcome)
        ],
    }
