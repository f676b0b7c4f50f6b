"""Bitcoin flows in status and metrics: transport, session ID, circuit, and what was carried.

The session ID is shown in the form of Bitcoin Core's getpeerinfo, so that whoever runs
both ends can compare them; beside it stand the circuits that Tor has for the flow's key
and purpose, where a control port tells of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from isoproxy.bitcoin.bridge import Flow
from isoproxy.bitcoin.flows import Sums, Totals
from isoproxy.bitcoin.messages import KNOWN_TYPES
from isoproxy.bitcoin.traffic import OTHER, Direction
from isoproxy.daemon.compose.bitcoin import Bitcoin, ProxyListener
from isoproxy.daemon.settings.front import flag_names
from isoproxy.daemon.status.circuits import Circuits
from isoproxy.isolation import P2P
from isoproxy.observe.log import Sensitive, reveal
from isoproxy.observe.metrics import Metrics

MESSAGE_TYPES = tuple(sorted(kind.rstrip(b"\0").decode("ascii") for kind in (*KNOWN_TYPES, OTHER)))
"""The types that messages are counted by."""


def bitcoin_status(
    bitcoin: Bitcoin, shown: Sequence[Flow], circuits: Circuits, *, safe: bool
) -> dict[str, object]:
    """The part of `isoproxy status` about Bitcoin, ready for JSON; only `shown` flows.

    Who the peers are is scrubbed where logging is `safe`.
    """
    totals = bitcoin.registry.totals()
    return {
        "proxies": [_proxy(name, door) for name, door in bitcoin.doors.items()],
        "flows": [_flow(flow, circuits.get((flow.key, P2P), ()), safe) for flow in shown],
        "open": len(bitcoin.registry.flows),
        "totals": {
            "outcomes": {outcome.value: count for outcome, count in totals.outcomes.items()},
            "to_peer": _sums(totals.to_peer),
            "to_client": _sums(totals.to_client),
            "corrupt": totals.corrupt,
        },
    }


def collect_bitcoin(metrics: Metrics, totals: Totals) -> None:
    """Bring the Bitcoin metrics up to date."""
    for outcome, count in totals.outcomes.items():
        metrics.v2_sessions.of(outcome=outcome.value).value = count
    for direction, sums in (("up", totals.to_peer), ("down", totals.to_client)):
        for transport, size in (("v1", sums.v1), ("v2", sums.v2), ("wire", sums.wire)):
            metrics.p2p_bytes.of(direction=direction, transport=transport).value = size
        for kind, count in sums.messages.items():
            metrics.p2p_messages.of(direction=direction, type=kind).value = count


def _proxy(name: str, door: ProxyListener) -> dict[str, object]:
    proxy = door.proxy
    return {
        "name": name,
        "address": door.address(),
        "isolate": flag_names(door.context.rule.listener.isolate),
        "open": len(proxy.connections) + door.context.open,
        "accepted": proxy.accepted,
        "refusals": {kind.value: count for kind, count in proxy.refused.most_common()},
    }


def _flow(flow: Flow, circuits: Sequence[str], safe: bool) -> dict[str, object]:
    translator = flow.translator
    shown: dict[str, object] = {
        "key": flow.key.label,
        "target": reveal(Sensitive(flow.peer), safe=safe),
        "network": flow.network.name if flow.network is not None else None,
        "transport": flow.transport,
        "session_id": flow.session_id,
        "circuits": list(circuits),
        "fell_back": flow.fell_back,
        "bytes_up": flow.bytes_up,
        "bytes_down": flow.bytes_down,
    }
    if translator is not None:
        shown["to_peer"] = _direction(translator.to_peer)
        shown["to_client"] = _direction(translator.to_client)
    return shown


def _direction(direction: Direction) -> dict[str, object]:
    return {
        "v1_bytes": direction.v1_bytes,
        "v2_bytes": direction.v2_bytes,
        "wire_bytes": direction.wire,
        "dropped": direction.dropped,
        "messages": {
            kind: {"count": count, "payload_bytes": payload}
            for kind, (count, payload) in direction.by_type().items()
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
