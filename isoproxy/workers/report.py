"""What a worker has counted, and how it is written for the main process: JSON.

Invariants
    A report says where a stream goes only where logging is not safe.  What is read is
    checked: a report is made of numbers, of words of ours, of the names of listeners.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from isoproxy.errors import ErrorKind
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.statistics import Counters, FlowView
from isoproxy.isolation import (
    ClientProtocol,
    CredentialForm,
    Credentials,
    upstream_credentials,
)
from isoproxy.observe.log import Sensitive, reveal
from isoproxy.socks import Command

FLOWS_PER_MESSAGE: Final = 100
"""So many fit whatever is told of them: applications' own credentials may be shown to Tor."""


@dataclass(slots=True)
class Report:
    """One worker's share of what `isoproxy status` and the metrics show."""

    counters: Counters = field(default_factory=Counters)
    accepted: Counter[str] = field(default_factory=Counter)
    flows: list[FlowView] = field(default_factory=list)
    circuits_pending: int = 0
    circuits_queued: int = 0
    lookups_refused: int = 0


def report_of(front: FrontEnd, lookups_refused: int) -> Report:
    """A worker's report as of now."""
    circuits = front.dialer.circuits
    return Report(
        front.counters,
        front.accepted,
        list(front.flows()),
        circuits.pending,
        circuits.queued,
        lookups_refused,
    )


def merged(reports: Iterable[Report]) -> Report:
    """All of them together."""
    total = Report()
    for report in reports:
        total.counters.add(report.counters)
        total.accepted.update(report.accepted)
        total.flows += report.flows
        total.circuits_pending += report.circuits_pending
        total.circuits_queued += report.circuits_queued
        total.lookups_refused += report.lookups_refused
    return total


def encode(report: Report, ticket: int, form: CredentialForm, *, safe: bool) -> Iterator[bytes]:
    """The messages that answer the order `ticket`; the last says so.

    Tor knows the streams by credentials of `form`; where it is `safe`, no target is told.
    """
    flows = [_written(flow, form, safe=safe) for flow in report.flows]
    for start in range(0, len(flows), FLOWS_PER_MESSAGE):
        part = flows[start : start + FLOWS_PER_MESSAGE]
        yield json.dumps({"part": ticket, "flows": part}).encode()
    counters = report.counters
    yield json.dumps(
        {
            "done": ticket,
            "flows": [],
            "sums": [
                counters.opened,
                counters.bytes_up,
                counters.bytes_down,
                counters.spliced_up,
                counters.spliced_down,
                counters.defects,
                counters.fd_exhaustion,
            ],
            "refusals": [[kind.value, count] for kind, count in counters.refusals.items()],
            "handshakes": [
                [name, protocol and protocol.value.decode(), kind and kind.value, count]
                for (name, protocol, kind), count in counters.handshakes.items()
            ],
            "requests": [
                [name, command.value, kind and kind.value, count]
                for (name, command, kind), count in counters.requests.items()
            ],
            "dials": [counters.dials.counts, counters.dials.total],
            "accepted": report.accepted,
            "circuits": [report.circuits_pending, report.circuits_queued],
            "lookups_refused": report.lookups_refused,
        }
    ).encode()


def decode(message: Mapping[str, Any]) -> Report:
    """The report in a message; ValueError, KeyError or TypeError if it is none."""
    report = Report(flows=[_flow(flow) for flow in message["flows"]])
    if "done" not in message:
        return report
    counters = report.counters
    (
        counters.opened,
        counters.bytes_up,
        counters.bytes_down,
        counters.spliced_up,
        counters.spliced_down,
        counters.defects,
        counters.fd_exhaustion,
    ) = map(int, message["sums"])
    for kind, count in message["refusals"]:
        counters.refusals[ErrorKind(kind)] = int(count)
    for name, protocol, kind, count in message["handshakes"]:
        spoken = None if protocol is None else ClientProtocol(str(protocol).encode())
        counters.handshakes[str(name), spoken, _kind(kind)] = int(count)
    for name, command, kind, count in message["requests"]:
        counters.requests[str(name), Command(command), _kind(kind)] = int(count)
    counts, total = message["dials"]
    if len(counts) != len(counters.dials.counts):
        raise ValueError("another histogram")
    counters.dials.counts, counters.dials.total = [int(count) for count in counts], float(total)
    report.accepted.update({str(name): int(count) for name, count in message["accepted"].items()})
    report.circuits_pending, report.circuits_queued = map(int, message["circuits"])
    report.lookups_refused = int(message["lookups_refused"])
    return report


def _kind(value: str | None) -> ErrorKind | None:
    return None if value is None else ErrorKind(value)


def _flow(values: Any) -> FlowView:
    listener, stage, key, age_s, up, down, spliced, said, target = values
    spliced_up, spliced_down = map(int, spliced)
    carrier = None if said is None else Credentials(*map(base64.b64decode, said))
    return FlowView(
        str(listener),
        str(stage),
        str(key),
        float(age_s),
        int(up),
        int(down),
        (spliced_up, spliced_down),
        carrier,
        None if target is None else Sensitive(str(target)),
    )


def _written(flow: FlowView, form: CredentialForm, *, safe: bool) -> tuple[object, ...]:
    """A flow in JSON's types; of its key what Tor was told."""
    said = None
    if isinstance(flow.carrier, tuple):
        own = upstream_credentials(*flow.carrier, form)
        said = [base64.b64encode(word).decode() for word in (own.username, own.password)]
    return (
        flow.listener,
        flow.stage,
        flow.key,
        flow.age_s,
        flow.bytes_up,
        flow.bytes_down,
        flow.spliced,
        said,
        None if flow.target is None else reveal(flow.target, safe=safe),
    )
