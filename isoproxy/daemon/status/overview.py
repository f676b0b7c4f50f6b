"""What a running isoproxy tells of itself: nothing in here identifies anybody.

One answer for all who look: `isoproxy status`, its `--watch`, and the dashboard.  With
`observe.safe_logging = false` it also says where streams go.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain

from isoproxy import __version__
from isoproxy.admin.server import Answer
from isoproxy.daemon.settings.front import flag_names
from isoproxy.daemon.status.bitcoin import bitcoin_status
from isoproxy.daemon.status.circuits import CircuitIds, circuits_of, relays_of
from isoproxy.daemon.status.identities import identities_status
from isoproxy.daemon.status.snapshot import Snapshot, TorView, Traffic
from isoproxy.front.statistics import FlowView
from isoproxy.observe.log import reveal
from isoproxy.workers.report import Report


def overview(snapshot: Snapshot, *, max_flows: int | None = None) -> Answer:
    """The answer to `isoproxy status`, ready for JSON; `max_flows` bounds each list of flows.

    The flows are in the order of their keys, and the oldest of a key comes first.
    """
    traffic = snapshot.traffic
    flows = sorted(traffic.report.flows, key=lambda flow: (not flow.key, flow.key, -flow.age_s))
    peers = sorted(traffic.report.bitcoin.flows, key=lambda flow: (flow.key, flow.session_id))
    shown, shown_peers = flows[:max_flows], peers[:max_flows]
    carriers = {flow.carrier for flow in shown if flow.carrier is not None}
    carriers |= {flow.carrier for flow in shown_peers if flow.carrier is not None}
    circuits = circuits_of(snapshot.circuits, carriers, snapshot.form)
    safe = snapshot.config.observe.safe_logging
    return {
        "version": __version__,
        "pid": snapshot.pid,
        "uptime_s": round(snapshot.uptime_s, 1),
        "tasks": snapshot.tasks,
        "epoch": snapshot.epoch,
        "workers": list(traffic.workers),
        "scrubbed": safe,
        "dashboard": snapshot.dashboard,
        "tor": tor_status(snapshot.tor),
        "names": snapshot.names,
        "listeners": listeners_status(traffic),
        "relays": relays_of(snapshot.circuits, set(chain.from_iterable(circuits.values()))),
        "identities": identities_status(snapshot),
        "flows": [flow_status(flow, circuits, safe=safe) for flow in shown],
        "bitcoin": bitcoin_status(traffic, shown_peers, circuits, safe=safe),
        "counters": counters_status(traffic.report),
    }


def tor_status(tor: TorView) -> dict[str, object]:
    """How Tor stands, and how far its start has come where it tells."""
    bootstrap = tor.bootstrap
    return {
        "mode": tor.mode,
        "state": tor.state,
        "answers": tor.answers,
        "version": tor.version,
        "control": tor.control,
        "signals": tor.signals,
        "advice": tor.advice,
        "bootstrap": None
        if bootstrap is None
        else {
            "percent": bootstrap.percent,
            "summary": bootstrap.summary,
            "warning": bootstrap.warning,
        },
    }


def listeners_status(traffic: Traffic) -> list[dict[str, object]]:
    """The listeners that are open, and how many clients they had in all processes."""
    flows = Counter(flow.listener for flow in traffic.report.flows)
    return [
        {
            "name": listener.name,
            "address": listener.address,
            "isolate": flag_names(listener.isolate),
            "open": flows[listener.name],
            "accepted": traffic.report.accepted[listener.name],
        }
        for listener in traffic.listeners
    ]


def flow_status(flow: FlowView, circuits: CircuitIds, *, safe: bool) -> dict[str, object]:
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
        "destinations_without_credentials": total.without_credentials,
        "circuits_pending": total.circuits_pending,
        "circuits_queued": total.circuits_queued,
        "refusals": {kind.value: count for kind, count in counters.refusals.most_common()},
    }
