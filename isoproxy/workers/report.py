"""What a stream process has counted, and how it is written for the main process: JSON.

Invariants
    A report says where a stream goes only where logging is not safe.  What is read is
    checked (`checked`): a report is made of numbers, of words of ours, and of the names of
    listeners that the process was told of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from isoproxy.errors import ErrorKind
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.states import State
from isoproxy.front.statistics import Counters, FlowView
from isoproxy.isolation import ClientProtocol, CredentialForm
from isoproxy.observe.log import reveal
from isoproxy.socks import Command
from isoproxy.workers import bitcoin_report as bitcoin
from isoproxy.workers.bitcoin_report import BitcoinReport
from isoproxy.workers.checked import array, count, optional, seconds, table, text

FLOWS_PER_MESSAGE: Final = 100
"""So many fit whatever is told of them: applications' own credentials may be shown to Tor."""
COUNTS_PER_MESSAGE: Final = 500
_STATES: Final = frozenset(state.value for state in State)


@dataclass(slots=True)
class Report:
    """One process's share of what `isoproxy status` and the metrics show."""

    counters: Counters = field(default_factory=Counters)
    accepted: Counter[str] = field(default_factory=Counter)
    flows: list[FlowView] = field(default_factory=list)
    circuits_pending: int = 0
    circuits_queued: int = 0
    lookups_refused: int = 0
    bitcoin: BitcoinReport = field(default_factory=BitcoinReport)

    def ended(self) -> Report:
        """What stays of it when its process has ended: sums, open streams' bytes included."""
        rest = merged([self])
        for flow in self.flows:
            rest.counters.bytes_up += flow.bytes_up
            rest.counters.bytes_down += flow.bytes_down
            rest.counters.spliced_up += flow.spliced[0]
            rest.counters.spliced_down += flow.spliced[1]
        rest.flows, rest.bitcoin = [], self.bitcoin.ended()
        rest.circuits_pending = rest.circuits_queued = 0
        return rest


def report_of(front: FrontEnd, peers: BitcoinReport, lookups_refused: int) -> Report:
    """A stream process's report as of now."""
    circuits = front.dialer.circuits
    return Report(
        front.counters,
        front.accepted,
        list(front.flows()),
        circuits.pending,
        circuits.queued,
        lookups_refused,
        peers,
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
        total.bitcoin.add(report.bitcoin)
    return total


def encode(report: Report, ticket: int, form: CredentialForm, *, safe: bool) -> Iterator[bytes]:
    """The messages that answer the order `ticket`; the last says so.

    Tor knows the streams by credentials of `form`; where it is `safe`, no target is told.
    """
    lists: dict[str, tuple[list[Any], int]] = {
        "flows": (
            [_written(flow, form, safe=safe) for flow in report.flows],
            FLOWS_PER_MESSAGE,
        ),
        "peers": (
            [bitcoin.written_flow(flow, form, safe=safe) for flow in report.bitcoin.flows],
            bitcoin.FLOWS_PER_MESSAGE,
        ),
        "handshakes": (
            [
                [name, protocol and protocol.value.decode(), kind and kind.value, number]
                for (name, protocol, kind), number in report.counters.handshakes.items()
            ],
            COUNTS_PER_MESSAGE,
        ),
        "requests": (
            [
                [name, command.value, kind and kind.value, number]
                for (name, command, kind), number in report.counters.requests.items()
            ],
            COUNTS_PER_MESSAGE,
        ),
    }
    for name, (entries, at_a_time) in lists.items():
        for start in range(0, len(entries), at_a_time):
            some = entries[start : start + at_a_time]
            yield json.dumps({"part": ticket, name: some}).encode()
    yield json.dumps({"done": ticket, **_sums(report)}).encode()


def decode(message: Mapping[str, Any], is_known: Callable[[str], bool]) -> Report:
    """The report in an object; `is_known` says whether a listener has such a name.

    ValueError or KeyError if it is none.
    """
    report = Report()
    if "done" in message:
        report = _read_sums(message, is_known)
    counters = report.counters
    report.flows = [_flow(flow, is_known) for flow in array(message.get("flows", []))]
    report.bitcoin.flows = [bitcoin.read_flow(flow) for flow in array(message.get("peers", []))]
    for entry in array(message.get("handshakes", [])):
        name, protocol, kind, number = array(entry, 4)
        which = _known(name, is_known), optional(_protocol, protocol), optional(_kind, kind)
        counters.handshakes[which] = count(number)
    for entry in array(message.get("requests", [])):
        name, command, kind, number = array(entry, 4)
        asked = _known(name, is_known), Command(count(command)), optional(_kind, kind)
        counters.requests[asked] = count(number)
    return report


def _sums(report: Report) -> dict[str, object]:
    """All but what is listed entry by entry, in JSON's types."""
    counters = report.counters
    return {
        "sums": [
            counters.opened,
            counters.bytes_up,
            counters.bytes_down,
            counters.spliced_up,
            counters.spliced_down,
            counters.defects,
            counters.fd_exhaustion,
        ],
        "refusals": [[kind.value, number] for kind, number in counters.refusals.items()],
        "dials": [counters.dials.counts, counters.dials.total],
        "accepted": report.accepted,
        "circuits": [report.circuits_pending, report.circuits_queued],
        "lookups_refused": report.lookups_refused,
        "bitcoin": bitcoin.written_sums(report.bitcoin),
    }


def _read_sums(message: Mapping[str, Any], is_known: Callable[[str], bool]) -> Report:
    report = Report()
    counters = report.counters
    (
        counters.opened,
        counters.bytes_up,
        counters.bytes_down,
        counters.spliced_up,
        counters.spliced_down,
        counters.defects,
        counters.fd_exhaustion,
    ) = map(count, array(message["sums"], 7))
    for entry in array(message["refusals"]):
        kind, number = array(entry, 2)
        counters.refusals[_kind(kind)] = count(number)
    counts, total = array(message["dials"], 2)
    counters.dials.counts = [count(each) for each in array(counts, len(counters.dials.counts))]
    counters.dials.total = seconds(total)
    for name, number in table(message["accepted"]).items():
        report.accepted[_known(name, is_known)] = count(number)
    report.circuits_pending, report.circuits_queued = map(count, array(message["circuits"], 2))
    report.lookups_refused = count(message["lookups_refused"])
    report.bitcoin = bitcoin.read_sums(message["bitcoin"], is_known)
    return report


def _known(value: object, is_known: Callable[[str], bool]) -> str:
    if not isinstance(value, str) or not is_known(value):
        raise ValueError("not a listener")
    return value


def _kind(value: object) -> ErrorKind:
    return ErrorKind(text(value, 64))


def _protocol(value: object) -> ClientProtocol:
    return ClientProtocol(text(value, 32).encode())


def _flow(value: object, is_known: Callable[[str], bool]) -> FlowView:
    listener, stage, key, age_s, up, down, spliced, said, where = array(value, 9)
    spliced_up, spliced_down = map(count, array(spliced, 2))
    if text(stage, 16) not in _STATES:
        raise ValueError("not the state of a connection")
    return FlowView(
        _known(listener, is_known),
        stage,
        bitcoin.read_label(key),
        seconds(age_s),
        count(up),
        count(down),
        (spliced_up, spliced_down),
        optional(bitcoin.read_carrier, said),
        optional(bitcoin.read_sensitive, where),
    )


def _written(flow: FlowView, form: CredentialForm, *, safe: bool) -> tuple[object, ...]:
    """A flow in JSON's types; of its key what Tor was told."""
    return (
        flow.listener,
        flow.stage,
        flow.key,
        flow.age_s,
        flow.bytes_up,
        flow.bytes_down,
        flow.spliced,
        bitcoin.written_carrier(flow.carrier, form),
        None if flow.target is None else reveal(flow.target, safe=safe),
    )
