"""What a running isoproxy tells of itself: nothing in here identifies anybody.

One answer for all who look: `isoproxy status`, its `--watch`, and the dashboard.  With
`observe.safe_logging = false` it also says where streams go.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from isoproxy import __version__
from isoproxy.admin import Answer
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.settings.front import flag_names
from isoproxy.daemon.status.bitcoin import bitcoin_status
from isoproxy.daemon.status.circuits import Circuits, circuits_of
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.statistics import FlowView
from isoproxy.isolation import P2P
from isoproxy.observe.log import reveal
from isoproxy.observe.metrics import Metrics
from isoproxy.tor.control.connection import Phase
from isoproxy.workers.report import Report, merged, report_of

if TYPE_CHECKING:
    from isoproxy.daemon import Daemon

NO_NAMES: Final[Mapping[str, object]] = {"backend": "none"}


async def current_status(daemon: Daemon, *, max_flows: int | None = None) -> Answer:
    """The answer to `isoproxy status`, ready for JSON; `max_flows` bounds each list of flows.

    The flows are in the order of their keys, and the oldest of a key comes first.
    """
    others = await daemon.workers.report()
    total = merged([report_of(daemon.front, daemon.guard.refused), others])
    flows = sorted(total.flows, key=lambda flow: (not flow.key, flow.key, -flow.age_s))
    peers = daemon.bitcoin.registry.sorted_flows()
    shown, shown_peers = flows[:max_flows], peers[:max_flows]
    carriers = {flow.carrier for flow in shown if flow.carrier is not None}
    carriers |= {(flow.key, P2P) for flow in shown_peers}
    circuits = await circuits_of(daemon.upstream.control, carriers, daemon.dialer.form)
    safe = daemon.config.observe.safe_logging
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round(daemon.uptime_s, 1),
        "tasks": len(asyncio.all_tasks()),
        "epoch": daemon.isolator.epoch,
        "workers": daemon.workers.processes(),
        "scrubbed": safe,
        "dashboard": daemon.dashboard_place,
        "tor": tor_status(daemon.upstream, answers=daemon.tor_answers),
        "names": NO_NAMES if daemon.names is None else daemon.names.status(),
        "listeners": listeners_status(daemon.front, total),
        "flows": [flow_status(flow, circuits, safe=safe) for flow in shown],
        "bitcoin": bitcoin_status(daemon.bitcoin, shown_peers, circuits, safe=safe),
        "counters": counters_status(total),
    }


def tor_status(upstream: Upstream, *, answers: bool) -> dict[str, object]:
    """How Tor stands, and how far its start has come where it tells."""
    bootstrap = upstream.control.bootstrap
    return {
        "mode": upstream.mode,
        "state": upstream.describe(),
        "answers": answers,
        "version": upstream.control.version,
        "control": upstream.control.state.phase.value,
        "bootstrap": None
        if bootstrap is None
        else {
            "percent": bootstrap.percent,
            "summary": bootstrap.summary,
            "warning": bootstrap.warning,
        },
    }


def listeners_status(front: FrontEnd, total: Report) -> list[dict[str, object]]:
    """The listeners that are open, and how many clients they had in all processes."""
    flows = Counter(flow.listener for flow in total.flows)
    return [
        {
            "name": listener.settings.name,
            "address": listener.address(),
            "isolate": flag_names(listener.rule.listener.isolate),
            "open": flows[listener.settings.name],
            "accepted": total.accepted[listener.settings.name],
        }
        for listener in front.listeners.values()
    ]


def flow_status(flow: FlowView, circuits: Circuits, *, safe: bool) -> dict[str, object]:
    """One connection; its target is scrubbed where logging is `safe`."""
    own = circuits.get(flow.carrier, ()) if flow.carrier and flow.stage == "relaying" else ()
    return {
        "listener": flow.listener,
        "state": flow.stage,
        "key": flow.key,
        "target": None if flow.target is None else reveal(flow.target, safe=safe),
        "circuits": list(own),
        "age_s": round(flow.age_s, 1),
        "bytes_up": flow.bytes_up,
        "bytes_down": flow.bytes_down,
    }


def counters_status(total: Report) -> dict[str, object]:
    """Sums since the start over all processes, flows that are open included."""
    counters, flows = total.counters, total.flows
    return {
        "identities": len({flow.key for flow in flows if flow.key}),
        "open": len(flows),
        "opened": counters.opened,
        "bytes_up": counters.bytes_up + sum(flow.bytes_up for flow in flows),
        "bytes_down": counters.bytes_down + sum(flow.bytes_down for flow in flows),
        "defects": counters.defects,
        "out_of_descriptors": counters.fd_exhaustion,
        "local_lookups_refused": total.lookups_refused,
        "circuits_pending": total.circuits_pending,
        "circuits_queued": total.circuits_queued,
        "refusals": {kind.value: count for kind, count in counters.refusals.most_common()},
    }


def collect(
    metrics: Metrics,
    front: FrontEnd,
    upstream: Upstream,
    *,
    tor_answers: bool,
    workers: Report | None = None,
) -> None:
    """Bring the metrics up to date from what the parts, and the workers, count themselves."""
    total = merged([report_of(front, 0), workers or Report()])
    counters, flows = total.counters, total.flows
    for name in front.listeners:
        metrics.listeners.add(name)
    for gauge in metrics.connections.children():
        gauge.value = 0
    for (name, state), count in Counter((flow.listener, flow.stage) for flow in flows).items():
        metrics.listeners.add(name)  # a listener that a reload took away may still have flows
        metrics.connections.of(listener=name, state=state).value = count
    metrics.count_isolation_keys(lambda: len({flow.key for flow in flows if flow.key}))
    metrics.isolation_evictions.of(reason="new_identity").value = front.isolator.epoch
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
    dials = metrics.dial_seconds.of(upstream=upstream.mode)
    dials.counts, dials.total = list(counters.dials.counts), counters.dials.total
    for kind, count in counters.refusals.items():
        metrics.policy_refusals.of(kind=kind.value).value = count
    _collect_bytes(metrics, total)
    metrics.accept_pauses.value = counters.fd_exhaustion
    metrics.upstream_up.value = int(tor_answers)
    metrics.control_up.value = int(upstream.control.state.phase is Phase.READY)


def _collect_bytes(metrics: Metrics, total_of: Report) -> None:
    """Bytes of all flows, those that ended and those that are open."""
    counters, flows = total_of.counters, total_of.flows
    up = counters.bytes_up + sum(flow.bytes_up for flow in flows)
    down = counters.bytes_down + sum(flow.bytes_down for flow in flows)
    spliced_up = counters.spliced_up + sum(flow.spliced[0] for flow in flows)
    spliced_down = counters.spliced_down + sum(flow.spliced[1] for flow in flows)
    for direction, total, spliced in (("up", up, spliced_up), ("down", down, spliced_down)):
        metrics.relay_bytes.of(direction=direction, path="splice").value = spliced
        metrics.relay_bytes.of(direction=direction, path="copy").value = total - spliced
