"""Bitcoin flows in `isoproxy status`, for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

_MAX_FLOWS: Final = 40


def bitcoin_lines(answer: dict[str, Any], size: Callable[[int], str]) -> Iterator[str]:
    """Gateways, flows with their session IDs, and what v2 saved; nothing if there is none."""
    gateways, flows = answer["gateways"], answer["flows"]
    if gateways:
        yield ""
        yield f"{'GATEWAY':16} {'ADDRESS':28} {'OPEN':>6} {'SINCE START':>11}  ISOLATES BY"
    for one in gateways:
        yield (
            f"{one['name']:16} {one['address']:28} {one['open']:6} {one['accepted']:11}  "
            f"{','.join(one['isolate']) or 'nothing'}"
        )
    if flows:
        yield ""
        yield (
            f"{'KEY':6} {'BITCOIN':12} {'TRANSPORT':10} {'CIRCUIT':>8} {'UP':>10} {'DOWN':>10}  "
            "SESSION ID"
        )
    for flow in flows[:_MAX_FLOWS]:
        yield (
            f"{flow['key']:6} {flow['network'] or '-':12} {flow['transport']:10} "
            f"{','.join(flow['circuits']) or '-':>8} {size(flow['bytes_up']):>10} "
            f"{size(flow['bytes_down']):>10}  {flow['session_id'] or '-'}"
        )
    if len(flows) > _MAX_FLOWS:
        yield f"... and {len(flows) - _MAX_FLOWS} more"
    yield from _savings(answer["totals"], size)


def _savings(totals: dict[str, Any], size: Callable[[int], str]) -> Iterator[str]:
    v1 = sum(totals[way]["v1_bytes"] for way in ("to_peer", "to_client"))
    v2 = sum(totals[way]["v2_bytes"] for way in ("to_peer", "to_client"))
    if v1:
        yield ""
        yield f"bitcoin messages: {size(v1)} in v1, {size(v2)} in v2 ({(v2 - v1) / v1:+.2%})"
