"""The metrics as a snapshot has them: what the parts count themselves, in Prometheus' families."""

from __future__ import annotations

from collections import Counter

from isoproxy.bitcoin.flow import V1Reason
from isoproxy.bitcoin.flows import Totals
from isoproxy.daemon.status.snapshot import Snapshot
from isoproxy.observe.metrics import Metrics
from isoproxy.workers.report import Report


def collect(metrics: Metrics, snapshot: Snapshot) -> None:
    """Bring `metrics` up to date."""
    traffic = snapshot.traffic
    for listener in traffic.listeners:
        metrics.listeners.add(listener.name)
    _collect_flows(metrics, traffic.report)
    _collect_counters(metrics, traffic.report, snapshot.tor.mode)
    _collect_bytes(metrics, traffic.report)
    collect_bitcoin(metrics, traffic.report.bitcoin.totals)
    metrics.isolation_evictions.of(reason="new_identity").value = snapshot.epoch
    metrics.upstream_up.value = int(snapshot.tor.answers)
    metrics.control_up.value = int(snapshot.tor.control_ready)
    metrics.name_cache_entries.value = snapshot.cached


def collect_bitcoin(metrics: Metrics, totals: Totals) -> None:
    """Bring the Bitcoin metrics up to date."""
    for outcome, count in totals.outcomes.items():
        metrics.v2_sessions.of(outcome=outcome.value).value = count
    ends, reasons = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for end, count in totals.ends.items():
        ends[end.ending.value, end.closed_by.value] += count
        if isinstance(end.reason, V1Reason):
            reasons[end.reason.value, end.outcome.value] += count
    for (ending, closed_by), count in ends.items():
        metrics.p2p_ends.of(ending=ending, closed_by=closed_by).value = count
    for (reason, became), count in reasons.items():
        metrics.p2p_v1_reasons.of(reason=reason, outcome=became).value = count
    for direction, sums in (("up", totals.to_peer), ("down", totals.to_client)):
        for transport, size in (("v1", sums.v1), ("v2", sums.v2), ("wire", sums.wire)):
            metrics.p2p_bytes.of(direction=direction, transport=transport).value = size
        for kind, count in sums.messages.items():
            metrics.p2p_messages.of(direction=direction, type=kind).value = count


def _collect_flows(metrics: Metrics, report: Report) -> None:
    flows = report.flows
    for gauge in metrics.connections.children():
        gauge.value = 0
    for (name, state), count in Counter((flow.listener, flow.stage) for flow in flows).items():
        metrics.listeners.add(name)  # a listener that a reload took away may still have flows
        metrics.connections.of(listener=name, state=state).value = count
    metrics.count_isolation_keys(lambda: len({flow.key for flow in flows if flow.key}))


def _collect_counters(metrics: Metrics, report: Report, upstream: str) -> None:
    counters = report.counters
    for (name, protocol, refusal), count in counters.handshakes.items():
        metrics.listeners.add(name)
        metrics.handshakes.of(
            listener=name,
            protocol=protocol.value.decode() if protocol is not None else "unknown",
            outcome=refusal.value if refusal is not None else "ok",
        ).value = count
    for (name, command, refusal), count in counters.requests.items():
        metrics.requests.of(
            listener=name,
            command=command.name.lower(),
            kind=refusal.value if refusal is not None else "ok",
        ).value = count
    dials = metrics.dial_seconds.of(upstream=upstream)
    dials.counts, dials.total = list(counters.dials.counts), counters.dials.total
    for kind, count in counters.refusals.items():
        metrics.policy_refusals.of(kind=kind.value).value = count
    metrics.accept_pauses.value = counters.fd_exhaustion


def _collect_bytes(metrics: Metrics, report: Report) -> None:
    """Bytes of all flows, those that ended and those that are open."""
    counters, flows = report.counters, report.flows
    up = counters.bytes_up + sum(flow.bytes_up for flow in flows)
    down = counters.bytes_down + sum(flow.bytes_down for flow in flows)
    spliced_up = counters.spliced_up + sum(flow.spliced[0] for flow in flows)
    spliced_down = counters.spliced_down + sum(flow.spliced[1] for flow in flows)
    for direction, total, spliced in (("up", up, spliced_up), ("down", down, spliced_down)):
        metrics.relay_bytes.of(direction=direction, path="splice").value = spliced
        metrics.relay_bytes.of(direction=direction, path="copy").value = total - spliced
