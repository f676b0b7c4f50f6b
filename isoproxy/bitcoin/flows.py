"""The Bitcoin flows of a process: those under way, and the sums of those that ended.

All ways to and from Bitcoin peers share one registry.

Invariants
    A flow that ended is counted once and let go of: what stays are numbers, none of which
    belongs to a key, a peer or a client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import Flow, TransportType
from isoproxy.bitcoin.traffic import Traffic


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
        if flow.network is None:
            return cls.UNTOUCHED
        if flow.transport is TransportType.V1:
            return cls.V1_INBOUND if flow.inbound else cls.V1_FALLBACK
        return cls.V2 if flow.transport is TransportType.V2 else cls.FAILED


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
    """Sums of both directions; `outcomes` counts flows that ended."""

    to_peer: Sums = field(default_factory=Sums)
    to_client: Sums = field(default_factory=Sums)
    corrupt: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)

    def add(self, flow: Flow) -> None:
        """Add a flow's traffic up to now."""
        self.to_peer.wire += flow.bytes_up
        self.to_client.wire += flow.bytes_down
        if flow.translator is not None:
            self.to_peer.add(flow.translator.to_peer)
            self.to_client.add(flow.translator.to_client)
            self.corrupt += flow.translator.corrupt


class FlowRegistry:
    """Flows under way (`flows`), and sums."""

    def __init__(self) -> None:
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
            self._ended.outcomes[Outcome.of(flow)] += 1

    def sorted_flows(self) -> list[Flow]:
        """The flows under way in an order that stays: by key, then by session."""
        return sorted(self.flows, key=_order)

    def totals(self) -> Totals:
        """Everything since the start, flows under way included."""
        ended = self._ended
        sums = Totals(corrupt=ended.corrupt, outcomes=Counter(ended.outcomes))
        for new, old in ((sums.to_peer, ended.to_peer), (sums.to_client, ended.to_client)):
            new.messages = Counter(old.messages)
            new.v1, new.v2, new.wire, new.dropped = old.v1, old.v2, old.wire, old.dropped
        for flow in self.flows:
            sums.add(flow)
        return sums


def _order(flow: Flow) -> tuple[str, str]:
    return flow.key.label if flow.key is not None else "", flow.session_id
