"""Counts of what isoproxy does, in Prometheus' text form.

Theory of operation
    A family has a name and labels whose values come from closed sets: enums of ours and
    the names of listeners in the configuration.  Code on the hot path asks a family once
    for the child it needs (`family.of(...)`) and from then on adds to a plain attribute.

Invariants
    No label can hold a host, a user, a key or a client's address: a value that is not in
    its label's set raises.  What is counted per identity is rounded (`isolation_keys`).
    Counts themselves tell of people's activity; they leave over a unix socket or the
    loopback interface only.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from isoproxy import __version__
from isoproxy.errors import ErrorKind

KINDS: Final = tuple(kind.value for kind in ErrorKind)
OUTCOMES: Final = ("ok", *KINDS)
P2P_OUTCOMES: Final = ("v2", "v1_fallback", "v1_inbound", "refused", "untouched", "failed")
P2P_ENDINGS: Final = (
    *("client_closed", "peer_closed", "client_broke_protocol", "peer_broke_protocol"),
    *("client_silent", "peer_silent", "peer_speaks_v1", "handshake_timeout", "idle"),
    *("v2_required", "dial_failed", "handed_on", "stopped"),
)
SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """A number that only grows; hot code writes `counter.value += n`."""

    __slots__ = ("value",)
    word: ClassVar[str] = "counter"

    def __init__(self) -> None:
        self.value = 0

    def samples(self) -> Iterator[tuple[str, str, float]]:
        yield "", "", self.value


class Gauge(Counter):
    """A number that goes up and down."""

    __slots__ = ()
    word: ClassVar[str] = "gauge"


class Histogram:
    """How often a duration in seconds fell below each bound of `SECONDS`."""

    __slots__ = ("counts", "total")
    word: ClassVar[str] = "histogram"

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def add(self, other: Histogram) -> None:
        """Count what another has counted as well."""
        self.counts = [
            ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.total += other.total

    def samples(self) -> Iterator[tuple[str, str, float]]:
        seen = 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            seen += count
            yield "_bucket", f'le="{bound}"', seen
        yield "_sum", "", self.total
        yield "_count", "", seen


Child = TypeVar("Child", bound=Counter | Histogram)


class Family(Generic[Child]):
    """All children of one name; `labels` gives each label's closed set of values."""

    __slots__ = ("_children", "_kind", "_labels", "help", "name")

    def __init__(
        self,
        kind: type[Child],
        name: str,
        help: str,
        labels: dict[str, Sequence[str] | ListenerNames],
    ) -> None:
        self.name = name
        self.help = help
        self._kind = kind
        self._labels = labels
        self._children: dict[tuple[str, ...], Child] = {}

    def of(self, **labels: str) -> Child:
        """The child with these label values; keep it where it is used often.

        Raises ValueError for a label or a value outside of the family's sets.
        """
        if labels.keys() != self._labels.keys():
            raise ValueError(f"{self.name} has the labels {', '.join(self._labels)}")
        values = tuple(labels[label] for label in self._labels)
        child = self._children.get(values)
        if child is None:
            for label, value in zip(self._labels, values, strict=True):
                if value not in self._labels[label]:
                    raise ValueError(f"{self.name}: not a value of the label {label}")
            child = self._children[values] = self._kind()
        return child

    @property
    def labels(self) -> Iterable[str]:
        """Their names."""
        return self._labels.keys()

    def children(self) -> Iterable[Child]:
        """All children that were ever asked for."""
        return self._children.values()

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self._kind.word}"
        for values, child in sorted(self._children.items()):
            pairs = [f'{k}="{v}"' for k, v in zip(self._labels, values, strict=True)]
            for suffix, extra, number in child.samples():
                inner = ",".join([*pairs, extra] if extra else pairs)
                braces = f"{{{inner}}}" if inner else ""
                yield f"{self.name}{suffix}{braces} {number!r}"


class ListenerNames:
    """The listeners' names: a closed set that a reload may widen."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = set(names)

    def add(self, name: str) -> None:
        """Admit `name`, which comes from the configuration (small letters, digits, -, _)."""
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError("a listener's name holds letters, digits, '-' and '_'")
        self._names.add(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names


class Metrics:
    """Every metric of isoproxy; one instance per process.

    `listeners` are the listeners' names, `message_types` the Bitcoin messages told apart.
    """

    def __init__(self, listeners: Iterable[str] = (), message_types: Sequence[str] = ()) -> None:
        self.listeners = names = ListenerNames(listeners)
        self._families: list[Family[Any]] = []
        backends = ("electrum", "electrum-nmc", "namecoin-core")
        self.connections = self._add(
            Gauge,
            "isoproxy_connections",
            "Client connections open now.",
            listener=names,
            state=("handshake", "opening", "relaying", "closing"),
        )
        self.handshakes = self._add(
            Counter,
            "isoproxy_handshakes_total",
            "Handshakes of clients that came to an end.",
            listener=names,
            protocol=("socks4", "socks5", "http-connect", "bitcoin", "transparent", "unknown"),
            outcome=OUTCOMES,
        )
        self.requests = self._add(
            Counter,
            "isoproxy_requests_total",
            "Requests of clients.",
            listener=names,
            command=("connect", "resolve", "resolve_ptr", "bind", "udp_associate"),
            kind=OUTCOMES,
        )
        self.dial_seconds = self._add(
            Histogram,
            "isoproxy_dial_seconds",
            "Time that Tor took to open a stream.",
            upstream=("managed", "system", "arti"),
        )
        self.relay_bytes = self._add(
            Counter,
            "isoproxy_relay_bytes_total",
            "Bytes relayed, by copying them or within the kernel.",
            direction=("up", "down"),
            path=("copy", "splice"),
        )
        self.names = self._add(
            Counter,
            "isoproxy_names_total",
            "Names looked up.",
            backend=backends,
            outcome=("ok", "cached", *KINDS),
        )
        self.name_seconds = self._add(
            Histogram, "isoproxy_name_seconds", "Time that a look-up took.", backend=backends
        )
        self.isolation_evictions = self._add(
            Counter,
            "isoproxy_isolation_evictions_total",
            "Times that what identities had learned was dropped: of all of them at a new "
            "identity, of one of them where a cache was full.",
            reason=("new_identity", "cache_full"),
        )
        self.policy_refusals = self._add(
            Counter, "isoproxy_policy_refusals_total", "Requests refused.", kind=KINDS
        )
        self.v2_sessions = self._add(
            Counter,
            "isoproxy_v2_sessions_total",
            "Bitcoin flows, by what became of BIP324.",
            outcome=P2P_OUTCOMES,
        )
        self.p2p_ends = self._add(
            Counter,
            "isoproxy_p2p_ends_total",
            "Bitcoin flows that ended, by how and by whose doing.",
            ending=P2P_ENDINGS,
            closed_by=("client", "peer", "us", "tor"),
        )
        self.p2p_v1_reasons = self._add(
            Counter,
            "isoproxy_p2p_v1_reasons_total",
            "Bitcoin flows whose peer had no v2, by why and what became of them.",
            reason=("peer_closed", "peer_silent", "peer_speaks_v1", "remembered"),
            outcome=P2P_OUTCOMES,
        )
        self.p2p_bytes = self._add(
            Counter,
            "isoproxy_p2p_bytes_total",
            "Bytes of Bitcoin messages as v1 and as v2 has them, and all bytes on the wire.",
            direction=("up", "down"),
            transport=("v1", "v2", "wire"),
        )
        self.p2p_messages = self._add(
            Counter,
            "isoproxy_p2p_messages_total",
            "Bitcoin messages translated.",
            direction=("up", "down"),
            type=message_types,
        )
        self.name_cache_entries = self._single(
            Gauge, "isoproxy_name_cache_entries", "Answers in the caches of all identities."
        )
        self.name_cache_hits = self._single(
            Counter, "isoproxy_name_cache_hits_total", "Look-ups answered from a cache."
        )
        self.name_cache_misses = self._single(
            Counter, "isoproxy_name_cache_misses_total", "Look-ups that no cache answered."
        )
        self.accept_pauses = self._single(
            Counter, "isoproxy_accept_pauses_total", "Times that descriptors or budgets ran out."
        )
        self.control_up = self._single(
            Gauge, "isoproxy_control_up", "Whether Tor's ControlPort is connected."
        )
        self.upstream_up = self._single(
            Gauge, "isoproxy_upstream_up", "Whether Tor's SocksPort answered last time."
        )
        self._isolation_keys: Callable[[], int] = lambda: 0

    def families(self) -> Sequence[Family[Any]]:
        """All of them."""
        return tuple(self._families)

    def count_isolation_keys(self, count: Callable[[], int]) -> None:
        """Ask `count` for the number of live keys whenever metrics are read."""
        self._isolation_keys = count

    def exposition(self) -> str:
        """All metrics in Prometheus' text format, to be served as `CONTENT_TYPE`."""
        keys = -(-self._isolation_keys() // 8) * 8  # rounded up: the exact number identifies
        lines = [
            "# HELP isoproxy_build_info The version that is running.",
            "# TYPE isoproxy_build_info gauge",
            f'isoproxy_build_info{{version="{__version__}"}} 1',
            "# HELP isoproxy_isolation_keys Identities in use, rounded up to a multiple of 8.",
            "# TYPE isoproxy_isolation_keys gauge",
            f"isoproxy_isolation_keys {keys}",
        ]
        for family in self._families:
            lines += family.lines()
        return "\n".join(lines) + "\n"

    def _add(
        self, kind: type[Child], name: str, help: str, /, **labels: Sequence[str] | ListenerNames
    ) -> Family[Child]:
        family = Family(kind, name, help, labels)
        self._families.append(family)
        return family

    def _single(self, kind: type[Child], name: str, help: str) -> Child:
        return self._add(kind, name, help).of()
