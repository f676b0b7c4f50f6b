"""The last hour as the dashboard draws it: sums, and what each identity moved.

Theory of operation
    Whoever keeps it feeds it a snapshot every `PERIOD_S` (`take`).  Of two snapshots in turn it
    keeps the difference: rates of bytes, refusals, the mean time of look-ups; and of each the
    streams and circuits that were open.  A stream has no number; two sights of it are matched by
    identity, listener and the moment it began.

Invariants
    At most `SAMPLES` of each series and `MAX_IDENTITIES` identities, by label.  An identity's
    series ends with the identity (`forget`): nothing ties the new one to the old.  No name, address
    or credential gets here.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Final

from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.front.statistics import FlowView

PERIOD_S: Final = 10.0
SAMPLES: Final = 360
MAX_IDENTITIES: Final = 64
SERIES: Final = ("up", "down", "streams", "circuits", "lookup_ms", "refusals")
_SAME_START_S: Final = 1.0

Number = float | None
_Moved = tuple[int, int]


class _Total:
    """Sums at one moment, of which the next are taken."""

    def __init__(self, snapshot: Snapshot, lookups: tuple[int, float]) -> None:
        report = snapshot.traffic.report
        self.at = snapshot.uptime_s
        self.up = report.counters.bytes_up + sum(flow.bytes_up for flow in report.flows)
        self.down = report.counters.bytes_down + sum(flow.bytes_down for flow in report.flows)
        self.refusals = report.counters.refusals.total()
        self.lookups, self.lookup_s = lookups
        self.flows = _by_place(report.flows, snapshot.uptime_s)


class History:
    """What was seen; empty at first."""

    def __init__(self) -> None:
        self._series: dict[str, deque[Number]] = {name: deque(maxlen=SAMPLES) for name in SERIES}
        self._identities: dict[str, deque[_Moved]] = {}
        self._before: _Total | None = None

    def take(self, snapshot: Snapshot, lookups: tuple[int, float]) -> None:
        """Add a sample.  `lookups` are how many ended so far, and their seconds in all."""
        before, now = self._before, _Total(snapshot, lookups)
        self._before = now
        if before is None or now.at <= before.at:
            return
        seconds, count = now.at - before.at, now.lookups - before.lookups
        circuits = sum(circuit.status == "BUILT" for circuit in snapshot.circuits)
        took = round(1000 * (now.lookup_s - before.lookup_s) / count, 1) if count > 0 else None
        for name, value in (
            ("up", round(max(0, now.up - before.up) / seconds)),
            ("down", round(max(0, now.down - before.down) / seconds)),
            ("streams", len(snapshot.traffic.report.flows)),
            ("circuits", circuits if snapshot.tor.control_ready else None),
            ("lookup_ms", took),
            ("refusals", now.refusals - before.refusals),
        ):
            self._series[name].append(value)
        self._take_identities(_moved(before, now), seconds, {place[0] for place in now.flows})

    def forget(self, is_over: Callable[[str], bool] = lambda label: True) -> None:
        """These identities have ended, all of them by default."""
        for label in filter(is_over, list(self._identities)):
            del self._identities[label]

    def answer(self) -> dict[str, object]:
        """All of it, ready for JSON; the last of each series is the newest."""
        return {
            "period_s": PERIOD_S,
            **{name: list(series) for name, series in self._series.items()},
            "identities": {
                label: {"up": [up for up, _ in series], "down": [down for _, down in series]}
                for label, series in self._identities.items()
            },
        }

    def _take_identities(
        self, moved: Counter[tuple[str, str]], seconds: float, open_now: Iterable[str]
    ) -> None:
        for label in sorted(set(open_now) - self._identities.keys() - {""}):
            if len(self._identities) >= MAX_IDENTITIES and not self._evict(set(open_now)):
                break
            self._identities[label] = deque(maxlen=SAMPLES)
        for label, series in list(self._identities.items()):
            up, down = (round(moved[label, way] / seconds) for way in ("up", "down"))
            series.append((up, down))
            if len(series) == SAMPLES and not any(map(any, series)):
                del self._identities[label]

    def _evict(self, open_now: set[str]) -> bool:
        """Make room by an identity without streams; says whether there was one."""
        label = next((label for label in self._identities if label not in open_now), None)
        if label is not None:
            del self._identities[label]
        return label is not None


_Place = tuple[str, str]
_Sight = tuple[float, int, int]


def _by_place(flows: Iterable[FlowView], now: float) -> dict[_Place, list[_Sight]]:
    """Identity and listener to the streams there: when each began, bytes up and down."""
    found: defaultdict[_Place, list[_Sight]] = defaultdict(list)
    for flow in flows:
        found[flow.key, flow.listener].append((now - flow.age_s, flow.bytes_up, flow.bytes_down))
    return {place: sorted(sights) for place, sights in found.items()}


def _moved(before: _Total, now: _Total) -> Counter[tuple[str, str]]:
    """Bytes by label and direction, of the streams that are open now."""
    moved: Counter[tuple[str, str]] = Counter()
    for place, sights in now.flows.items():
        label, earlier = place[0], deque(before.flows.get(place, ()))
        for began, up, down in sights:
            while earlier and earlier[0][0] < began - _SAME_START_S:
                earlier.popleft()
            same = bool(earlier) and earlier[0][0] <= began + _SAME_START_S
            _, up_before, down_before = earlier.popleft() if same else (0.0, 0, 0)
            moved[label, "up"] += max(0, up - up_before)
            moved[label, "down"] += max(0, down - down_before)
    return moved
