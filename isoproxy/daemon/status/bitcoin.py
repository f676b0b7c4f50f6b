"""Bitcoin flows in the status: transport, session ID, circuit, and what was carried.

The session ID is shown in the form of Bitcoin Core's getpeerinfo, so that whoever runs
both ends can compare them; beside it stand the circuits that Tor has for the flow's key
and purpose, where a control port tells of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from isoproxy.bitcoin.flow import Flow
from isoproxy.bitcoin.flows import Sums
from isoproxy.bitcoin.traffic import Traffic
from isoproxy.daemon.settings.front import flag_names
from isoproxy.daemon.status.circuits import CircuitIds
from isoproxy.daemon.status.snapshot import BitcoinView, ProxyView
from isoproxy.isolation import P2P
from isoproxy.observe.log import Sensitive, reveal


def bitcoin_status(
    bitcoin: BitcoinView, shown: Sequence[Flow], circuits: CircuitIds, *, safe: bool
) -> dict[str, object]:
    """The part of `isoproxy status` about Bitcoin, ready for JSON; only `shown` flows.

    Who the peers are is scrubbed where logging is `safe`.
    """
    totals = bitcoin.totals
    return {
        "proxies": [_proxy(proxy) for proxy in bitcoin.proxies],
        "flows": [_flow(flow, _circuits(flow, circuits), safe) for flow in shown],
        "open": len(bitcoin.flows),
        "totals": {
            "outcomes": {outcome.value: count for outcome, count in totals.outcomes.items()},
            "to_peer": _sums(totals.to_peer),
            "to_client": _sums(totals.to_client),
            "corrupt": totals.corrupt,
        },
    }


def _proxy(proxy: ProxyView) -> dict[str, object]:
    return {
        "name": proxy.name,
        "address": proxy.address,
        "isolate": flag_names(proxy.isolate),
        "open": proxy.open,
        "accepted": proxy.accepted,
        "refusals": {kind.value: count for kind, count in proxy.refusals.most_common()},
    }


def _flow(flow: Flow, circuits: Sequence[str], safe: bool) -> dict[str, object]:
    translator = flow.translator
    shown: dict[str, object] = {
        "key": flow.key.label if flow.key is not None else "",
        "inbound": flow.inbound,
        "target": reveal(Sensitive(flow.peer), safe=safe),
        "network": flow.network.name if flow.network is not None else None,
        "transport": flow.transport.value,
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


def _circuits(flow: Flow, circuits: CircuitIds) -> Sequence[str]:
    return circuits.get((flow.key, P2P), ()) if flow.key is not None else ()


def _direction(direction: Traffic) -> dict[str, object]:
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
