"""What a stream process tells of Bitcoin flows: those under way, sums, and its proxies.

Invariants
    As in `report`: numbers, and words of ours; where a flow goes only where logging is not
    safe.  Message types are those of the protocol and one word for all others.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Flow, TransportType, V1Reason
from isoproxy.bitcoin.flows import FlowEnd, Outcome, Sums, Totals
from isoproxy.bitcoin.messages import KNOWN_TYPES
from isoproxy.bitcoin.traffic import OTHER, Traffic
from isoproxy.errors import ErrorKind
from isoproxy.isolation import (
    P2P,
    CredentialForm,
    Credentials,
    IsolationKey,
    Purpose,
    upstream_credentials,
)
from isoproxy.observe.log import Sensitive, reveal
from isoproxy.workers.checked import array, count, flag, optional, table, text

MESSAGE_TYPES: Final = frozenset(
    kind.rstrip(b"\0").decode("ascii") for kind in (*KNOWN_TYPES, OTHER)
)
"""The types that messages are counted by."""
FLOWS_PER_MESSAGE: Final = 20
"""So many fit, each with all types of messages both ways."""
_V1_REASONS: Final = {reason.value: reason for reason in V1Reason}
_SESSION: Final = re.compile(r"(?:[0-9a-f]{64})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class CarriedView:
    """What a translation carried one way: bytes in either transport, messages by type."""

    v1: int
    v2: int
    wire: int
    dropped: int
    messages: Mapping[str, tuple[int, int]]
    """Type to (messages, payload bytes)."""


@dataclass(frozen=True, slots=True)
class PeerFlowView:
    """One flow to or from a Bitcoin peer, as `isoproxy status` shows it; see `FlowView`.

    A peer that came in has no key and no carrier.
    """

    key: str
    carrier: tuple[IsolationKey, Purpose] | Credentials | None
    target: Sensitive
    network: str | None
    transport: TransportType
    session_id: str
    fell_back: bool
    v1_reason: V1Reason | None
    inbound: bool
    bytes_up: int
    bytes_down: int
    to_peer: CarriedView | None = None
    to_client: CarriedView | None = None


@dataclass(slots=True)
class ProxyCounts:
    """Connections of one proxy: open now, and accepted and refused since the start."""

    open: int = 0
    accepted: int = 0
    refusals: Counter[ErrorKind] = field(default_factory=Counter)

    def add(self, other: ProxyCounts) -> None:
        self.open += other.open
        self.accepted += other.accepted
        self.refusals.update(other.refusals)


@dataclass(slots=True)
class BitcoinReport:
    """The Bitcoin side of one process, or of all."""

    flows: list[PeerFlowView] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    proxies: dict[str, ProxyCounts] = field(default_factory=dict)

    def add(self, other: BitcoinReport) -> None:
        self.flows += other.flows
        for ours, theirs in _directions(self.totals, other.totals):
            ours.messages.update(theirs.messages)
            ours.v1 += theirs.v1
            ours.v2 += theirs.v2
            ours.wire += theirs.wire
            ours.dropped += theirs.dropped
        self.totals.corrupt += other.totals.corrupt
        self.totals.ends.update(other.totals.ends)
        for name, counts in other.proxies.items():
            self.proxies.setdefault(name, ProxyCounts()).add(counts)

    def ended(self) -> BitcoinReport:
        """What stays of it when its process has ended, and its flows with it."""
        rest = BitcoinReport()
        rest.add(self)
        for flow in self.flows:
            known = flow.network is not None
            outcome = Outcome.cut(flow.transport, known=known, inbound=flow.inbound)
            end = FlowEnd(outcome, Ending.STOPPED, flow.v1_reason, ClosedBy.US)
            rest.totals.ends[end] += 1
        rest.flows = []
        for counts in rest.proxies.values():
            counts.open = 0
        return rest


def _directions(ours: Totals, theirs: Totals) -> Iterable[tuple[Sums, Sums]]:
    return (ours.to_peer, theirs.to_peer), (ours.to_client, theirs.to_client)


def view_of(flow: Flow) -> PeerFlowView:
    """A flow as of now."""
    translator = flow.translator
    return PeerFlowView(
        flow.key.label if flow.key is not None else "",
        (flow.key, P2P) if flow.key is not None else None,
        Sensitive(flow.peer),
        flow.network.name if flow.network is not None else None,
        flow.transport,
        flow.session_id,
        flow.fell_back,
        flow.v1_reason,
        flow.inbound,
        flow.bytes_up,
        flow.bytes_down,
        *(_carried(translator.to_peer), _carried(translator.to_client))
        if translator is not None
        else (),
    )


def _carried(direction: Traffic) -> CarriedView:
    return CarriedView(
        direction.v1_bytes,
        direction.v2_bytes,
        direction.wire,
        direction.dropped,
        direction.by_type(),
    )


def written_flow(flow: PeerFlowView, form: CredentialForm, *, safe: bool) -> Sequence[object]:
    """A flow in JSON's types; of its key what Tor was told."""
    return (
        flow.key,
        written_carrier(flow.carrier, form),
        reveal(flow.target, safe=safe),
        flow.network,
        flow.transport.value,
        flow.session_id,
        flow.fell_back,
        flow.v1_reason and flow.v1_reason.value,
        flow.inbound,
        flow.bytes_up,
        flow.bytes_down,
        _written_carried(flow.to_peer),
        _written_carried(flow.to_client),
    )


def written_sums(report: BitcoinReport) -> dict[str, object]:
    """All but the flows, in JSON's types."""
    totals = report.totals
    return {
        "corrupt": totals.corrupt,
        "ends": [
            [*(word and word.value for word in end), number] for end, number in totals.ends.items()
        ],
        "directions": [
            [sums.v1, sums.v2, sums.wire, sums.dropped, sums.messages]
            for sums in (totals.to_peer, totals.to_client)
        ],
        "proxies": {
            name: [
                counts.open,
                counts.accepted,
                [[kind.value, number] for kind, number in counts.refusals.items()],
            ]
            for name, counts in report.proxies.items()
        },
    }


def written_carrier(
    carrier: tuple[IsolationKey, Purpose] | Credentials | None, form: CredentialForm
) -> list[str] | None:
    """What Tor was told."""
    if carrier is None:
        return None
    own = carrier if isinstance(carrier, Credentials) else upstream_credentials(*carrier, form)
    return [base64.b64encode(word).decode() for word in (own.username, own.password)]


def read_carrier(value: object) -> Credentials:
    """The credentials in what a stream process says; ValueError."""
    username, password = array(value, 2)
    return Credentials(_word(username), _word(password))


def _word(value: object) -> bytes:
    return base64.b64decode(text(value, 344), validate=True)


def read_label(value: object) -> str:
    """A key's label, or nothing."""
    label = text(value, 6)
    bytes.fromhex(label)
    return label


def read_sensitive(value: object) -> Sensitive:
    """Where a stream goes, for those who may know."""
    return Sensitive(text(value, 300))


def read_flow(value: object) -> PeerFlowView:
    """The flow in what a stream process says; ValueError."""
    (
        key,
        said,
        where,
        network,
        transport,
        session,
        fell_back,
        v1_reason,
        inbound,
        up,
        down,
        to_peer,
        to_client,
    ) = array(value, 13)
    if not _SESSION.fullmatch(text(session, 64)):
        raise ValueError("not a session ID")
    return PeerFlowView(
        read_label(key),
        optional(read_carrier, said),
        read_sensitive(where),
        optional(lambda name: text(name, 32), network),
        TransportType(text(transport, 16)),
        session,
        flag(fell_back),
        optional(lambda word: V1Reason(text(word, 32)), v1_reason),
        flag(inbound),
        count(up),
        count(down),
        optional(_read_carried, to_peer),
        optional(_read_carried, to_client),
    )


def read_sums(value: object, is_known: Callable[[str], bool]) -> BitcoinReport:
    """All but the flows; proxies have names that are known.  ValueError, or KeyError."""
    said, report = table(value), BitcoinReport()
    totals = report.totals
    totals.corrupt = count(said["corrupt"])
    for words in array(said["ends"]):
        *end, number = array(words, 5)
        totals.ends[_read_end(*end)] = count(number)
    for sums, words in zip(
        (totals.to_peer, totals.to_client), array(said["directions"], 2), strict=True
    ):
        v1, v2, wire, dropped, messages = array(words, 5)
        sums.v1, sums.v2, sums.wire, sums.dropped = map(count, (v1, v2, wire, dropped))
        for kind, number in table(messages).items():
            sums.messages[_kind(kind)] = count(number)
    for name, words in table(said["proxies"]).items():
        if not is_known(name):
            raise ValueError("not a proxy")
        opened, accepted, refusals = array(words, 3)
        counts = report.proxies[name] = ProxyCounts(count(opened), count(accepted))
        for pair in array(refusals):
            refusal, number = array(pair, 2)
            counts.refusals[ErrorKind(text(refusal, 64))] = count(number)
    return report


def _read_end(outcome: object, ending: object, reason: object, closed_by: object) -> FlowEnd:
    return FlowEnd(
        Outcome(text(outcome, 32)),
        Ending(text(ending, 32)),
        optional(_reason, reason),
        ClosedBy(text(closed_by, 16)),
    )


def _reason(value: object) -> V1Reason | ErrorKind:
    word = text(value, 64)
    return _V1_REASONS[word] if word in _V1_REASONS else ErrorKind(word)


def _written_carried(carried: CarriedView | None) -> Sequence[object] | None:
    if carried is None:
        return None
    return carried.v1, carried.v2, carried.wire, carried.dropped, carried.messages


def _read_carried(value: object) -> CarriedView:
    v1, v2, wire, dropped, messages = array(value, 5)
    by_type = {}
    for kind, words in table(messages).items():
        number, payload = array(words, 2)
        by_type[_kind(kind)] = count(number), count(payload)
    return CarriedView(count(v1), count(v2), count(wire), count(dropped), by_type)


def _kind(kind: str) -> str:
    if kind not in MESSAGE_TYPES:
        raise ValueError("not a type of messages")
    return kind
