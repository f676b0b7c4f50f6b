"""A report survives its way to the main process, less what is not for it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.front.statistics import Counters, FlowView
from isoproxy.isolation import (
    APP,
    ClientProtocol,
    CredentialForm,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
    upstream_credentials,
)
from isoproxy.observe.log import SCRUBBED, Sensitive, reveal
from isoproxy.socks import Command
from isoproxy.tls.outcome import TlsOutcome
from isoproxy.workers.channel import MAX_MESSAGE
from isoproxy.workers.checked import parse
from isoproxy.workers.report import (
    COUNTS_PER_MESSAGE,
    FLOWS_PER_MESSAGE,
    Report,
    decode,
    encode,
    merged,
)

FORM = CredentialForm.PROP351
KEY = Isolator().key_for(
    ListenerRule(own_group("a")), IsolationTuple(None, ClientProtocol.SOCKS5, b"MARKED")
)


def flow(target: str = "marked.test:80") -> FlowView:
    where = Sensitive(target)
    return FlowView("a", "relaying", KEY.label, 1.5, 3, 4, (1, 2), (KEY, APP), where)


def full() -> Report:
    counters = Counters(7, 6, 5, 4, 3, 2, 1)
    counters.refusals[ErrorKind.BUSY] += 1
    counters.handshakes["a", None, ErrorKind.BUSY] = 2
    counters.handshakes["a", ClientProtocol.HTTP_CONNECT, None] = 3
    counters.requests["a", Command.RESOLVE, None] = 4
    counters.requests["a", Command.CONNECT, ErrorKind.DIAL_TIMEOUT] = 5
    counters.dials.observe(0.2)
    counters.https[TlsOutcome.RECORD] = 6
    return Report(counters, Counter(a=9), [flow()], 11, 12, 13, without_credentials=14)


def is_known(name: str) -> bool:
    return name == "a"


def there(report: Report, *, safe: bool) -> tuple[Report, bytes]:
    parts = list(encode(report, 1, FORM, safe=safe))
    return merged(decode(parse(part), is_known) for part in parts), b"".join(parts)


def test_everything_arrives_but_keys_and_targets() -> None:
    report, words = there(full(), safe=True)
    sent = full()
    assert report.counters.dials.counts == sent.counters.dials.counts
    report.counters.dials = sent.counters.dials
    assert report.counters == sent.counters
    assert (report.accepted, report.lookups_refused) == (sent.accepted, 13)
    assert (report.circuits_pending, report.circuits_queued) == (11, 12)
    assert report.without_credentials == 14
    (got,) = report.flows
    assert got.carrier == upstream_credentials(KEY, APP, FORM)
    assert (got.key, got.bytes_up, got.bytes_down, got.spliced) == (KEY.label, 3, 4, (1, 2))
    assert got.target is not None
    assert reveal(got.target, safe=True) == SCRUBBED
    assert b"marked" not in words.lower()


def test_of_several_processes_the_most_destinations_count() -> None:
    reports = [Report(without_credentials=number) for number in (2, 5, 3)]
    assert merged(reports).without_credentials == 5
    assert reports[1].ended().without_credentials == 0


def test_the_target_is_told_where_logging_is_not_safe() -> None:
    report, _ = there(full(), safe=False)
    target = report.flows[0].target
    assert target is not None
    assert reveal(target, safe=False) == "marked.test:80"


@pytest.mark.parametrize("count", [0, FLOWS_PER_MESSAGE, FLOWS_PER_MESSAGE + 1])
def test_many_flows_take_several_messages(count: int) -> None:
    parts = list(encode(Report(flows=[flow()] * count), 1, FORM, safe=True))
    assert len(parts) == 1 + -(-count // FLOWS_PER_MESSAGE)
    assert len(merged(decode(parse(part), is_known) for part in parts).flows) == count
    assert all("done" not in json.loads(part) for part in parts[:-1])


def test_parts_of_the_longest_flows_fit_a_message() -> None:
    own = IsolationTuple(None, ClientProtocol.SOCKS5, b"\xff" * 255, b"\xff" * 255)
    key = Isolator(verbatim=True).key_for(ListenerRule(own_group("a")), own)
    longest = replace(flow("x" * 249 + ":65535"), listener="l" * 32, carrier=(key, APP))
    parts = encode(Report(flows=[longest] * FLOWS_PER_MESSAGE * 2), 1, FORM, safe=False)
    assert max(map(len, parts)) < MAX_MESSAGE


def test_what_many_listeners_count_fits_messages() -> None:
    report = Report()
    for number in range(COUNTS_PER_MESSAGE):
        for kind in ErrorKind:
            name = f"{number:032}"
            report.counters.handshakes[name, ClientProtocol.HTTP_CONNECT, kind] = 1 << 60
            report.counters.requests[name, Command.RESOLVE_PTR, kind] = 1 << 60
    parts = list(encode(report, 1, FORM, safe=True))
    assert max(map(len, parts)) < MAX_MESSAGE
    told = merged(decode(parse(part), lambda name: True) for part in parts)
    assert told.counters.handshakes == report.counters.handshakes
    assert told.counters.requests == report.counters.requests


def test_of_a_process_that_ended_sums_stay_and_nothing_is_open() -> None:
    report = full()
    rest = report.ended()
    assert (rest.counters.bytes_up, rest.counters.bytes_down) == (6 + 3, 5 + 4)
    assert (rest.counters.spliced_up, rest.counters.spliced_down) == (4 + 1, 3 + 2)
    assert (rest.accepted, rest.counters.opened) == (report.accepted, 7)
    assert (rest.flows, rest.circuits_pending, rest.circuits_queued) == ([], 0, 0)
    assert report.counters.bytes_up == 6


WHOLE: dict[str, Any] = json.loads(list(encode(full(), 1, FORM, safe=True))[-1])
HUGE = 1 << 63
FLOW = ["a", "relaying", "abcdef", 1.5, 3, 4, [1, 2], None, None]


@pytest.mark.parametrize(
    "change",
    [
        {"sums": [1] * 6},
        {"sums": [HUGE] + [0] * 6},
        {"sums": [-1] + [0] * 6},
        {"sums": [1e999] + [0] * 6},
        {"sums": None},
        {"refusals": [["no such kind", 1]]},
        {"refusals": [[[], 1]]},
        {"dials": [[1], 0.0]},
        {"dials": [WHOLE["dials"][0], 1e999]},
        {"accepted": {"another": 1}},
        {"accepted": []},
        {"circuits": [1]},
        {"lookups_refused": "1"},
        {"bitcoin": []},
        {"handshakes": [["another", "socks5", None, 1]]},
        {"handshakes": [["a", "no such protocol", None, 1]]},
        {"handshakes": [[["a"], "socks5", None, 1]]},
        {"requests": [["a", 99, None, 1]]},
        {"requests": [["a", 1, None]]},
        {"requests": 7},
        {"flows": [FLOW[:8]]},
        {"flows": [["another", *FLOW[1:]]]},
        {"flows": [["a", "no such stage", *FLOW[2:]]]},
        {"flows": [["a", "relaying", "MARKED", *FLOW[3:]]]},
        {"flows": [["a", "relaying", "abcdef", 1e999, *FLOW[4:]]]},
        {"flows": [[*FLOW[:7], ["!", "!"], None]]},
        {"flows": [[*FLOW[:8], "x" * 400]]},
        {"peers": [[]]},
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, Any]) -> None:
    decode(WHOLE | {"flows": [FLOW]}, is_known)
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        decode(WHOLE | change, is_known)


@pytest.mark.parametrize("missing", sorted(set(WHOLE) - {"done"}))
def test_a_report_lacks_nothing(missing: str) -> None:
    with pytest.raises(KeyError):
        decode({key: value for key, value in WHOLE.items() if key != missing}, is_known)
