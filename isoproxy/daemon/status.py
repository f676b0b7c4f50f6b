"""What a running isoproxy tells of itself: nothing in here identifies anybody."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence

from isoproxy import __version__
from isoproxy.admin import Answer
from isoproxy.daemon.settings import flag_names
from isoproxy.daemon.upstream import Upstream
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.report import Report, merged, report_of
from isoproxy.observe.metrics import Metrics
from isoproxy.tor.control import Phase


def status(
    front: FrontEnd,
    upstream: Upstream,
    *,
    tor_answers: bool,
    uptime_s: float,
    local_lookups_refused: int,
    bitcoin: Mapping[str, object],
    names: Mapping[str, object] | None = None,
    workers: Report | None = None,
    worker_processes: Sequence[Mapping[str, object]] = (),
) -> Answer:
    """The answer to `isoproxy status`, ready for JSON; `names` is None where none are resolved.

    `workers` is what the other processes have counted; `worker_processes` names them.
    """
    total = merged([report_of(front, local_lookups_refused), workers or Report()])
    counters, flows = total.counters, total.flows
    open_by_listener = Counter(flow.listener for flow in flows)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round(uptime_s, 1),
        "tasks": len(asyncio.all_tasks()),
        "epoch": front.isolator.epoch,
        "workers": worker_processes,
        "tor": {
            "mode": upstream.mode,
            "state": upstream.describe(),
            "answers": tor_answers,
            "version": upstream.control.version,
            "control": upstream.control.state.phase.value,
        },
        "names": names if names is not None else {"backend": "none"},
        "listeners": [
            {
                "name": listener.settings.name,
                "address": listener.address(),
                "isolate": flag_names(listener.rule.listener.isolate),
                "open": open_by_listener[listener.settings.name],
                "accepted": total.accepted[listener.settings.name],
            }
            for listener in front.listeners.values()
        ],
        "flows": [
            {
                "listener": flow.listener,
                "state": flow.stage,
                "key": flow.key,
                "age_s": round(flow.age_s, 1),
                "bytes_up": flow.bytes_up,
                "bytes_down": flow.bytes_down,
            }
            for flow in flows
        ],
        "bitcoin": bitcoin,
        "counters": {
            "opened": counters.opened,
            "bytes_up": counters.bytes_up + sum(flow.bytes_up for flow in flows),
            "bytes_down": counters.bytes_down + sum(flow.bytes_down for flow in flows),
            "defects": counters.defects,
            "local_lookups_refused": total.lookups_refused,
            "out_of_descriptors": counters.scarcity,
            "circuits_pending": total.circuits_pending,
            "circuits_queued": total.circuits_queued,
            "refusals": {kind.value: count for kind, count in counters.refusals.most_common()},
        },
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
    metrics.relay_bytes.of(direction="up").value = counters.bytes_up + sum(
        flow.bytes_up for flow in flows
    )
    metrics.relay_bytes.of(direction="down").value = counters.bytes_down + sum(
        flow.bytes_down for flow in flows
    )
    metrics.accept_pauses.value = counters.scarcity
    metrics.upstream_up.value = int(tor_answers)
    metrics.control_up.value = int(upstream.control.state.phase is Phase.READY)
