"""The Bitcoin flows of a process: those under way, and the sums of those that ended.

All ways to and from Bitcoin peers share one registry.

Invariants
    A flow that ended is counted once and let go of: what stays are numbers, none of which
    belongs to a key, a peer or a client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Flow, TransportType, V1Reason
from isoproxy.bitcoin.traffic import Traffic
from isoproxy.errors import ErrorKind


class Outcome(Enum):
    """What became of BIP324 in a flow; the value is the metric label."""

    V2 = "v2"
    V1_FALLBACK = "v1_fallback"
    V1_INBOUND = "v1_inbound"
    REFUSED = "refused"
    UNTOUCHED = "untouched"
    FAILED = "failed"

    @classmethod
    def of(cls, flow: Flow) -> Outcome:
        """REFUSED: the peer or we had no v2 for it, and v1 was not allowed."""
        if flow.ended is Ending.V2_REQUIRED:
            return cls.REFUSED
        if flow.network is None and flow.ended is Ending.DIAL_FAILED:
            return cls.FAILED
        return cls.cut(flow.transport, known=flow.network is not None, inbound=flow.inbound)

    @classmethod
    def cut(cls, transport: TransportType, *, known: bool, inbound: bool) -> Outcome:
        """Of a flow that was ended with `transport` spoken; `known` is whether it is v1's."""
        if not known:
            return cls.UNTOUCHED
        if transport is TransportType.V1:
            return cls.V1_INBOUND if inbound else cls.V1_FALLBACK
        return cls.V2 if transport is TransportType.V2 else cls.FAILED


class FlowEnd(NamedTuple):
    """What became of a flow, in words of ours alone.

    `reason` says why v2 was not possible, or why there was no second stream.
    """

    outcome: Outcome
    ending: Ending
    reason: V1Reason | ErrorKind | None
    closed_by: ClosedBy

    @classmethod
    def of(cls, flow: Flow) -> FlowEnd:
        """The end of a flow that has ended."""
        assert flow.ended is not None
        assert flow.closed_by is not None
        reason = flow.dial_error or flow.v1_reason
        return cls(Outcome.of(flow), flow.ended, reason, flow.closed_by)


@dataclass(slots=True)
class Sums:
    """Totals of one direction: messages by type, and bytes in each transport.

    `v1` and `v2` are what the messages take in either; `wire` is all that passed on the
    peer's side, handshakes, garbage, decoys, fallbacks and untouched streams included.
    """

    messages: Counter[str] = field(default_factory=Counter)
    v1: int = 0
    v2: int = 0
    wire: int = 0
    dropped: int = 0

    def add(self, direction: Traffic) -> None:
        """Add what one translated connection carried."""
        for kind, (count, _) in direction.by_type().items():
            self.messages[kind] += count
        self.v1 += direction.v1_bytes
        self.v2 += direction.v2_bytes
        self.dropped += direction.dropped


@dataclass(slots=True)
class Totals:
    """Sums of both directions; `ends` counts flows that ended."""

    to_peer: Sums = field(default_factory=Sums)
    to_client: Sums = field(default_factory=Sums)
    corrupt: int = 0
    ends: Counter[FlowEnd] = field(default_factory=Counter)

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Flows that ended, by outcome."""
        outcomes: Counter[Outcome] = Counter()
        for end, count in self.ends.items():
            outcomes[end.outcome] += count
        return outcomes

    def add(self, flow: Flow) -> None:
        """Add a flow's traffic up to now."""
        self.to_peer.wire += flow.bytes_up
        self.to_client.wire += flow.bytes_down
        if flow.translator is not None:
            self.to_peer.add(flow.translator.to_peer)
            self.to_client.add(flow.translator.to_client)
            self.corrupt += flow.translator.corrupt


class FlowRegistry:
    """Flows under way (`flows`), and sums; `on_end` is told of each end, and whether the
    flow had come in."""

    def __init__(self, on_end: Callable[[FlowEnd, bool], None] | None = None) -> None:
        self._on_end = on_end
        self.flows: set[Flow] = set()
        self._ended = Totals()

    @contextmanager
    def entry(self, flow: Flow) -> Iterator[None]:
        """Have `flow` among the flows until the end of the context, then in the sums.

        Within another context of the same flow this one does nothing.
        """
        if flow in self.flows:
            yield
            return
        self.flows.add(flow)
        try:
            yield
        finally:
            self.flows.discard(flow)
            self._ended.add(flow)
            flow.end(Ending.STOPPED)
            end = FlowEnd.of(flow)
            self._ended.ends[end] += 1
            if self._on_end is not None:
                self._on_end(end, flow.inbound)

    def totals(self) -> Totals:
        """Everything since the start, flows under way included."""
        ended = self._ended
        sums = Totals(corrupt=ended.corrupt, ends=Counter(ended.ends))
        for new, old in ((sums.to_peer, ended.to_peer), (sums.to_client, ended.to_client)):
            new.messages = Counter(old.messages)
            new.v1, new.v2, new.wire, new.dropped = old.v1, old.v2, old.wire, old.dropped
        for flow in self.flows:
            sums.add(flow)
        return sums
