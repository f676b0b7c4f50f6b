"""Bitcoin flows in the status: transport, session ID, circuit, and what was carried.

The session ID is shown in the form of Bitcoin Core's getpeerinfo, so that whoever runs
both ends can compare them; beside it stand the circuits that Tor has for the flow's key
and purpose, where a control port tells of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from isoproxy.bitcoin.flows import Sums, Totals
from isoproxy.daemon.settings.front import flag_names
from isoproxy.daemon.status.circuits import CircuitIds
from isoproxy.daemon.status.snapshot import ListenerView, Traffic
from isoproxy.observe.log import reveal
from isoproxy.workers.bitcoin_report import CarriedView, PeerFlowView, ProxyCounts


def bitcoin_status(
    traffic: Traffic, shown: Sequence[PeerFlowView], circuits: CircuitIds, *, safe: bool
) -> dict[str, object]:
    """The part of `isoproxy status` about Bitcoin, ready for JSON; only `shown` flows.

    Who the peers are is scrubbed where logging is `safe`.
    """
    report = traffic.report.bitcoin
    totals, none = report.totals, ProxyCounts()
    return {
        "proxies": [
            _proxy(proxy, report.proxies.get(proxy.name, none)) for proxy in traffic.proxies
        ],
        "flows": [_flow(flow, circuits, safe) for flow in shown],
        "open": len(report.flows),
        "totals": {
            "outcomes": {outcome.value: count for outcome, count in totals.outcomes.items()},
            "ends": _ends(totals),
            "to_peer": _sums(totals.to_peer),
            "to_client": _sums(totals.to_client),
            "corrupt": totals.corrupt,
        },
    }


def _proxy(proxy: ListenerView, counts: ProxyCounts) -> dict[str, object]:
    return {
        "name": proxy.name,
        "address": proxy.address,
        "isolate": flag_names(proxy.isolate),
        "open": counts.open,
        "accepted": counts.accepted,
        "refusals": {kind.value: count for kind, count in counts.refusals.most_common()},
    }


def _flow(flow: PeerFlowView, circuits: CircuitIds, safe: bool) -> dict[str, object]:
    own = circuits.get(flow.carrier, ()) if flow.carrier is not None else ()
    shown: dict[str, object] = {
        "key": flow.key,
        "inbound": flow.inbound,
        "target": reveal(flow.target, safe=safe),
        "network": flow.network,
        "transport": flow.transport.value,
        "session_id": flow.session_id,
        "circuits": list(own),
        "fell_back": flow.fell_back,
        "v1_reason": flow.v1_reason and flow.v1_reason.value,
        "bytes_up": flow.bytes_up,
        "bytes_down": flow.bytes_down,
    }
    if flow.to_peer is not None and flow.to_client is not None:
        shown["to_peer"] = _carried(flow.to_peer)
        shown["to_client"] = _carried(flow.to_client)
    return shown


def _ends(totals: Totals) -> list[dict[str, object]]:
    """What became of flows, why, and who closed them; the most frequent first."""
    return [
        {
            "outcome": end.outcome.value,
            "ending": end.ending.value,
            "reason": end.reason and end.reason.value,
            "closed_by": end.closed_by.value,
            "count": count,
        }
        for end, count in totals.ends.most_common()
    ]


def _carried(carried: CarriedView) -> dict[str, object]:
    return {
        "v1_bytes": carried.v1,
        "v2_bytes": carried.v2,
        "wire_bytes": carried.wire,
        "dropped": carried.dropped,
        "messages": {
            kind: {"count": count, "payload_bytes": payload}
            for kind, (count, payload) in carried.messages.items()
        },
    }


def _sums(sums: Sums) -> dict[str, object]:
    return {
        "v1_bytes": sums.v1,
        "v2_bytes": sums.v2,
        "wire_bytes": sums.wire,
        "dropped": sums.dropped,
        "messages": dict(sums.messages.most_common()),
    }
