"""A report survives its way to the main process, less what is not for it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

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
from isoproxy.workers.channel import MAX_MESSAGE
from isoproxy.workers.report import FLOWS_PER_MESSAGE, Report, decode, encode, merged

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
    return Report(counters, Counter(a=9), [flow()], 11, 12, 13)


def there(report: Report, *, safe: bool) -> tuple[Report, bytes]:
    parts = list(encode(report, 1, FORM, safe=safe))
    return merged(decode(json.loads(part)) for part in parts), b"".join(parts)


def test_everything_arrives_but_keys_and_targets() -> None:
    report, words = there(full(), safe=True)
    sent = full()
    assert report.counters.dials.counts == sent.counters.dials.counts
    report.counters.dials = sent.counters.dials
    assert report.counters == sent.counters
    assert (report.accepted, report.lookups_refused) == (sent.accepted, 13)
    assert (report.circuits_pending, report.circuits_queued) == (11, 12)
    (got,) = report.flows
    assert got.carrier == upstream_credentials(KEY, APP, FORM)
    assert (got.key, got.bytes_up, got.bytes_down, got.spliced) == (KEY.label, 3, 4, (1, 2))
    assert got.target is not None
    assert reveal(got.target, safe=True) == SCRUBBED
    assert b"marked" not in words.lower()


def test_the_target_is_told_where_logging_is_not_safe() -> None:
    report, _ = there(full(), safe=False)
    target = report.flows[0].target
    assert target is not None
    assert reveal(target, safe=False) == "marked.test:80"


@pytest.mark.parametrize("count", [0, FLOWS_PER_MESSAGE, FLOWS_PER_MESSAGE + 1])
def test_many_flows_take_several_messages(count: int) -> None:
    parts = list(encode(Report(flows=[flow()] * count), 1, FORM, safe=True))
    assert len(parts) == 1 + -(-count // FLOWS_PER_MESSAGE)
    assert len(merged(decode(json.loads(part)) for part in parts).flows) == count
    assert all("done" not in json.loads(part) for part in parts[:-1])


def test_parts_of_the_longest_flows_fit_a_message() -> None:
    own = IsolationTuple(None, ClientProtocol.SOCKS5, b"\xff" * 255, b"\xff" * 255)
    key = Isolator(verbatim=True).key_for(ListenerRule(own_group("a")), own)
    longest = replace(flow("x" * 249 + ":65535"), listener="l" * 32, carrier=(key, APP))
    parts = encode(Report(flows=[longest] * FLOWS_PER_MESSAGE * 2), 1, FORM, safe=False)
    assert max(map(len, parts)) < MAX_MESSAGE
