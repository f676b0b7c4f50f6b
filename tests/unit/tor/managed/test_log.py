"""The log of a tor of our own: it says what is wrong, and of nobody what he does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.tor.managed.log import MAX_LINE, MAX_LINES, TorLog, scrub


@pytest.mark.parametrize(
    "text",
    [
        'Managed proxy "/usr/bin/obfs4proxy" process terminated with status code 256',
        "Bootstrapped 10% (conn_done): Connected to a relay",
        "Permissions on directory /var/lib/isoproxy/tor are too permissive.",
        "Rate limiting NEWNYM request: delaying by 10 second(s)",
        "Unknown option 'Foo'. Failing.",
        "Your application is giving Tor only an IP address [scrubbed].",
    ],
)
def test_what_is_wrong_can_be_read(text: str) -> None:
    assert scrub(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "example.com", "example.com:443", '"example.bit"', "(example.test),", "192.0.2.1:9001",
        "[2001:db8::1]:443", "::1", "$9CF77A9F7190283AD919645650CE0BD937029630~exit",
        "9CF77A9F7190283AD919645650CE0BD937029630", "user@example", "cert=ssH+9rP8dG2Nb",
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid", "caf\xe9", "d/example",
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcd", "a=b", "1234567890",
    ],
)  # fmt: skip
def test_what_identifies_cannot(secret: str) -> None:
    assert scrub(f"Cannot reach {secret} now") == "Cannot reach [scrubbed] now"


@given(st.lists(st.text(max_size=900), max_size=300))
def test_it_is_bounded(texts: list[str]) -> None:
    log = TorLog()
    for text in texts:
        log.add("00:00:00", "notice", text)
    assert len(log.lines) <= MAX_LINES
    assert all(len(line) <= MAX_LINE + 20 and "\n" not in line for line in log.lines)


def test_the_last_complaint() -> None:
    log = TorLog()
    assert log.complaint is None
    for level, text in (("warn", "first"), ("err", "second"), ("notice", "third")):
        log.add("00:00:00", level, text)
    assert log.complaint == "second"
