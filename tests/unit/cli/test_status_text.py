"""The status at a terminal: every section, and never wider or higher than it is."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.cli.status_text import counted, fitting_text, names_text, status_text

SESSION = "f00d" * 16
FLOW = {
    "key": "abcdef", "listener": "default", "state": "relaying", "circuits": ["17"],
    "target": "[scrubbed]", "age_s": 4000.0, "bytes_up": 1000, "bytes_down": 0,
}  # fmt: skip
PEER = {
    "key": "0ddba1", "network": "mainnet", "transport": "v2", "circuits": ["7", "9"],
    "target": "[scrubbed]", "bytes_up": 5, "bytes_down": 6, "session_id": SESSION,
    "v1_reason": None, "inbound": False,
}  # fmt: skip
END = {
    "outcome": "v1_fallback", "ending": "handed_on", "reason": "peer_speaks_v1",
    "closed_by": "tor", "count": 12,
}  # fmt: skip
LISTENER = {
    "name": "workstations", "address": "unix:/run/isoproxy/workstations/socks", "open": 50,
    "accepted": 1234, "isolate": ["ClientAddr", "SOCKSAuth", "DestAddr"],
}  # fmt: skip


def status(flows: int = 50, **changes: Any) -> dict[str, Any]:
    """What a busy isoproxy answers."""
    return {
        "version": "1",
        "uptime_s": 120.0,
        "epoch": 3,
        "scrubbed": True,
        "dashboard": "http://127.0.0.1:9252/",
        "tor": {
            "mode": "managed", "state": "tor runs", "answers": False, "version": "0.4.9.11",
            "control": "ready", "advice": None,
            "bootstrap": {"percent": 45, "summary": "Loading relay descriptors", "warning": None},
        },
        "names": {
            "backend": "electrum", "ready": True, "complete": True, "tip": 812345, "quorum": 2,
            "problem": None, "certificates": [],
            "fetched": 812345, "target": 812345, "unproven": 0,
            "servers": {"up": 3, "known": 4, "demoted": 1},
        },
        "listeners": [LISTENER],
        "flows": [FLOW] * flows,
        "counters": {
            "identities": 1, "open": flows, "opened": 99, "bytes_up": 1000, "bytes_down": 2000,
            "circuits_pending": 1, "circuits_queued": 0, "local_lookups_refused": 0,
            "destinations_without_credentials": 1,
            "refusals": {"connection_refused": 1, "name_not_found": 2},
        },
        "bitcoin": {
            "proxies": [LISTENER | {"name": "proxy", "isolate": []}],
            "flows": [PEER],
            "open": 1,
            "totals": {
                "to_peer": {"v1_bytes": 100, "v2_bytes": 90},
                "to_client": {"v1_bytes": 200, "v2_bytes": 180},
                "ends": [END],
            },
        },
        **changes,
    }  # fmt: skip


def test_many_destinations_of_one_identity_without_credentials_are_told() -> None:
    quiet = status()
    assert "WITHOUT CREDENTIALS" not in status_text(quiet)
    counters = quiet["counters"] | {"destinations_without_credentials": 7}
    assert "WITHOUT CREDENTIALS: 7 destinations" in status_text(quiet | {"counters": counters})


def test_every_section_is_there() -> None:
    text = status_text(status())
    for part in (
        "isoproxy 1, up 2 min",
        "dashboard: http://127.0.0.1:9252/",
        "DOES NOT ANSWER; control port ready; starting, 45 %: Loading relay descriptors",
        "names: electrum, ready at block 812345; servers 3 of 4 up, 1 demoted, quorum 2",
        "1 identity, 50 streams of 99",
        "epoch 3",
        "up 1.0 kB, down 2.0 kB",
        "connection_refused 1, name_not_found 2",
        "unix:/run/isoproxy/workstations/socks",
        "1.1 h",
        "... and 10 more",
        "bitcoin messages: 300 B in v1, 270 B in v2 (-10.00%)",
    ):
        assert part in text, part
    (line,) = [line for line in text.splitlines() if SESSION in line]
    assert line.split() == ["0ddba1", "mainnet", "v2", "7,9", "5", "B", "6", "B", SESSION]
    assert "TARGET" not in text


def test_how_far_the_headers_are_and_how_well_they_are_proven() -> None:
    names = status()["names"]
    waiting = names | {"ready": False, "tip": 815000, "fetched": 830000, "target": 853600}
    assert "synchronising headers, 830000 of 853600;" in names_text(waiting)
    sampled = names_text(names | {"unproven": 38000})
    assert "ready at block 812345 by sampled proof, 38000 blocks to be checked yet;" in sampled


def test_targets_show_where_they_are_not_scrubbed() -> None:
    text = status_text(status(1, scrubbed=False) | {"flows": [FLOW | {"target": "a.example:80"}]})
    assert "a.example:80" in text
    assert "observe.safe_logging is off" in text


@pytest.mark.parametrize("scrubbed", [True, False])
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 50), (100, 30), (200, 60)])
def test_it_fits_into_the_terminal(columns: int, rows: int, scrubbed: bool) -> None:
    lines = fitting_text(status(scrubbed=scrubbed), columns, rows).splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) <= rows
    flows = [line for line in lines if line.startswith("abcdef")]
    assert flows or rows == 24
    assert all("17" in line and "1.0 kB" in line for line in flows)


def test_a_terminal_too_small_for_anything_shows_the_beginning() -> None:
    lines = fitting_text(status(), 10, 5).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("isoproxy 1")


def test_nothing_to_show_takes_no_lines() -> None:
    none = {"v1_bytes": 0, "v2_bytes": 0}
    totals = {"to_peer": none, "to_client": none, "ends": []}
    bitcoin = {"proxies": [], "flows": [], "open": 0, "totals": totals}
    text = status_text(status(0, bitcoin=bitcoin))
    assert "BITCOIN" not in text
    assert "GATEWAY" not in text
    assert "bitcoin messages" not in text
    assert "KEY" not in text


def test_bitcoin_flows_say_why_v1_is_spoken_and_how_they_ended() -> None:
    peer = PEER | {"key": "", "inbound": True, "transport": "v1", "v1_reason": "peer_silent"}
    answer = status(0)
    answer["bitcoin"]["flows"] = [peer]
    text = status_text(answer)
    assert "came in  mainnet  v1 (peer silent)" in text
    assert "v1 fallback    handed on  peer speaks v1  tor           12" in text


def test_two_answers_make_a_rate() -> None:
    later = status(uptime_s=122.0)
    later["counters"] = later["counters"] | {"bytes_up": 5000}
    text = status_text(later, before=status())
    assert "now up 2.0 kB/s, down 0 B/s" in text
    assert "now" not in status_text(later, before=later)


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999 B"), (1000, "1.0 kB"), (10**15, "1000.0 TB")]
)
def test_sizes_are_for_people(count: int, shown: str) -> None:
    assert shown in status_text(status(flows=1) | {"flows": [FLOW | {"bytes_up": count}]})


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 identities"), (1, "1 identity"), (2, "2 identities")]
)
def test_one_thing_is_not_many(number: int, text: str) -> None:
    assert counted(number, "identity", "identities") == text


def test_what_keeps_names_from_being_looked_up_is_told() -> None:
    whole = status()
    names = whole["names"] | {"problem": "The clock is slow; set it."}
    text = status_text(whole | {"names": names})
    assert "names: electrum, not now; servers 3 of 4 up" in text
    assert "The clock is slow; set it." in text
    refused = {"server": "names.example:50002", "problem": "expired", "shown": None}
    text = status_text(whole | {"names": whole["names"] | {"certificates": [refused]}})
    assert "certificate refused of 1 server, see 'isoproxy doctor'" in text
    for problem, expected in ((None, "names: namecoin-core\n"), ("Wait.", "core; Wait.\n")):
        names = {"backend": "namecoin-core", "problem": problem}
        assert expected in status_text(whole | {"names": names})
