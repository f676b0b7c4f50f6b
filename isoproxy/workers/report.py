"""What a stream process has counted, and how it is written for the main process: JSON.

Theory of operation
    Most orders are answered by sums alone (`sums_of`), in which open streams' bytes are
    counted.  A report with all flows goes in many messages, each of which is made when the
    one before it has been taken; the sums come last (`ToldFlows`).

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
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from isoproxy.errors import ErrorKind
from isoproxy.front.connection import Connection
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.states import State
from isoproxy.front.statistics import Counters, FlowView
from isoproxy.isolation import ClientProtocol, CredentialForm
from isoproxy.observe.log import reveal
from isoproxy.socks import Command
from isoproxy.tls.outcome import TlsOutcome
from isoproxy.workers import bitcoin_report as bitcoin
from isoproxy.workers.bitcoin_report import BitcoinReport, PeerFlowView
from isoproxy.workers.checked import array, count, optional, seconds, table, text

FLOWS_PER_MESSAGE: Final = 25
"""Writing so many takes less than a millisecond, for which streams have to wait."""
COUNTS_PER_MESSAGE: Final = 500
_Entry = TypeVar("_Entry")
_STATES: Final = frozenset(state.value for state in State)


@dataclass(slots=True)
class Report:
    """One process's share of what `isoproxy status` and the metrics show.

    `without_credentials` is `FrontEnd.destinations_without_credentials`: of several processes
    the most, since only they know whether two of them have the same destination.
    """

    counters: Counters = field(default_factory=Counters)
    accepted: Counter[str] = field(default_factory=Counter)
    flows: list[FlowView] = field(default_factory=list)
    circuits_pending: int = 0
    circuits_queued: int = 0
    lookups_refused: int = 0
    bitcoin: BitcoinReport = field(default_factory=BitcoinReport)
    without_credentials: int = 0

    def add(self, other: Report) -> None:
        """Make it that of another process too."""
        self.counters.add(other.counters)
        self.accepted.update(other.accepted)
        self.flows += other.flows
        self.circuits_pending += other.circuits_pending
        self.circuits_queued += other.circuits_queued
        self.lookups_refused += other.lookups_refused
        self.bitcoin.add(other.bitcoin)
        self.without_credentials = max(self.without_credentials, other.without_credentials)

    def ended(self) -> Report:
        """What stays of it when its process has ended: sums, open streams' bytes included."""
        rest = merged([self])
        for flow in self.flows:
            rest.counters.bytes_up += flow.bytes_up
            rest.counters.bytes_down += flow.bytes_down
            rest.counters.spliced_up += flow.spliced[0]
            rest.counters.spliced_down += flow.spliced[1]
        rest.flows, rest.bitcoin = [], self.bitcoin.ended()
        rest.circuits_pending = rest.circuits_queued = rest.without_credentials = 0
        return rest


class ToldFlows:
    """The flows of a front end for one report, viewed as they are asked for.

    Streams go on meanwhile.  The bytes of one that ends after it was told are among the sums
    by then; `report` takes them back, so that they count once.
    """

    def __init__(self, front: FrontEnd) -> None:
        self._front = front
        self._told: list[tuple[Connection, FlowView]] = []

    def __iter__(self) -> Iterator[FlowView]:
        now = self._front.loop.time()
        for connection in self._front.connections:
            if connection.phase is not None:
                view = connection.view(now)
                self._told.append((connection, view))
                yield view

    def report(self, peers: BitcoinReport, lookups_refused: int) -> Report:
        """The rest of the process's report as of now, which stays so."""
        front, circuits = self._front, self._front.dialer.circuits
        rest = merged(
            [
                Report(
                    front.counters,
                    front.accepted,
                    [],
                    circuits.pending,
                    circuits.queued,
                    lookups_refused,
                    peers,
                    front.destinations_without_credentials(),
                )
            ]
        )
        for connection, view in self._told:
            if connection.phase is None:
                rest.counters.bytes_up -= view.bytes_up
                rest.counters.bytes_down -= view.bytes_down
                rest.counters.spliced_up -= view.spliced[0]
                rest.counters.spliced_down -= view.spliced[1]
        return rest


def sums_of(front: FrontEnd, peers: BitcoinReport, lookups_refused: int) -> Report:
    """What would stay of a stream process's report if it ended now."""
    rest = Report(front.counters, front.accepted, [], 0, 0, lookups_refused, peers).ended()
    for phase in filter(None, (connection.phase for connection in front.connections)):
        rest.counters.bytes_up += phase.bytes_up
        rest.counters.bytes_down += phase.bytes_down
        rest.counters.spliced_up += phase.bytes_spliced[0]
        rest.counters.spliced_down += phase.bytes_spliced[1]
    return rest


def merged(reports: Iterable[Report]) -> Report:
    """All of them together."""
    total = Report()
    for report in reports:
        total.add(report)
    return total


def encode(report: Report, ticket: int, form: CredentialForm, *, safe: bool) -> Iterator[bytes]:
    """The messages that answer the order `ticket`; the last says so.

    Tor knows the streams by credentials of `form`; where it is `safe`, no target is told.
    """
    counters = report.counters
    handshakes = [
        [name, protocol and protocol.value.decode(), kind and kind.value, number]
        for (name, protocol, kind), number in counters.handshakes.items()
    ]
    requests = [
        [name, command.value, kind and kind.value, number]
        for (name, command, kind), number in counters.requests.items()
    ]
    yield from encode_flows(report.flows, report.bitcoin.flows, ticket, form, safe=safe)
    for name, entries in ("handshakes", handshakes), ("requests", requests):
        for some in _chunks(entries, COUNTS_PER_MESSAGE, list):
            yield json.dumps({"part": ticket, name: some}).encode()
    yield json.dumps({"done": ticket, **_sums(report)}).encode()


def encode_flows(
    flows: Iterable[FlowView],
    peers: Iterable[PeerFlowView],
    ticket: int,
    form: CredentialForm,
    *,
    safe: bool,
) -> Iterator[bytes]:
    """Messages before the last; the flows are asked for as they are written."""
    for some in _chunks(flows, FLOWS_PER_MESSAGE, partial(_written, form=form, safe=safe)):
        yield json.dumps({"part": ticket, "flows": some}).encode()
    write = partial(bitcoin.written_flow, form=form, safe=safe)
    for some in _chunks(peers, bitcoin.FLOWS_PER_MESSAGE, write):
        yield json.dumps({"part": ticket, "peers": some}).encode()


def _chunks(
    entries: Iterable[_Entry], at_a_time: int, write: Callable[[_Entry], object]
) -> Iterator[list[object]]:
    """Nothing is written before it is asked for."""
    rest = iter(entries)
    while some := [write(entry) for entry in islice(rest, at_a_time)]:
        yield some


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
        "https": [[outcome.value, number] for outcome, number in counters.https.items()],
        "dials": [counters.dials.counts, counters.dials.total],
        "accepted": report.accepted,
        "circuits": [report.circuits_pending, report.circuits_queued],
        "lookups_refused": report.lookups_refused,
        "without_credentials": report.without_credentials,
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
    for entry in array(message["https"]):
        outcome, number = array(entry, 2)
        counters.https[TlsOutcome(text(outcome, 32))] = count(number)
    counts, total = array(message["dials"], 2)
    counters.dials.counts = [count(each) for each in array(counts, len(counters.dials.counts))]
    counters.dials.total = seconds(total)
    for name, number in table(message["accepted"]).items():
        report.accepted[_known(name, is_known)] = count(number)
    report.circuits_pending, report.circuits_queued = map(count, array(message["circuits"], 2))
    report.lookups_refused = count(message["lookups_refused"])
    report.without_credentials = count(message["without_credentials"])
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
