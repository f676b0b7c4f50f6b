"""Status and metrics of a front end at work."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

from isoproxy.config import load
from isoproxy.daemon.compose.listeners import open_listeners
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.settings.front import dialer_settings, listener_settings
from isoproxy.daemon.status.snapshot import (
    collect,
    counters_status,
    flow_status,
    listeners_status,
    tor_status,
)
from isoproxy.front.frontend import FrontEnd
from isoproxy.isolation import Isolator
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.observe.log import SCRUBBED
from isoproxy.observe.metrics import Metrics
from isoproxy.tor.dialer import Dialer
from isoproxy.workers.report import report_of
from tests.kit.socks_port import SocksPort


async def test_flows_are_shown_and_counted_without_a_name(tmp_path: Path) -> None:
    async with SocksPort() as tor:
        config = load(
            None,
            [
                "tor.mode=system",
                f"tor.socks={tor.endpoint}",
                "tor.control=none",
                "listener.0.address=127.0.0.1:0",
            ],
        ).config

        def fail(handler: Handler, error: Exception) -> None:
            raise error

        upstream = Upstream(config.tor, tmp_path)
        await upstream.start()
        reactor = Reactor(asyncio.get_running_loop(), fail)
        isolator = Isolator()
        dialer = Dialer(reactor, isolator, dialer_settings(config, upstream.socks))
        front = FrontEnd(reactor, isolator, dialer)
        (listener,) = open_listeners(front, listener_settings(config), {})
        metrics = Metrics(["default"])
        host, _, port = listener.address().rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        _, idle = await asyncio.open_connection(host, int(port))
        writer.write(b"\x05\x01\x02\x01\x06MARKED\x01p\x05\x01\x00\x03\x09marked.ex\x00\x50")
        await reader.readexactly(14)
        writer.write(b"12345")
        await reader.readexactly(5)

        flows = list(front.flows())
        carried = {flow.carrier: ["7"] for flow in flows if flow.carrier is not None}
        shown = [flow_status(flow, carried, safe=True) for flow in flows]
        total = report_of(front, 0)
        answer = [listeners_status(front, total), shown, counters_status(total)]
        collect(metrics, front, upstream, tor_answers=True)
        text = metrics.exposition()

        assert {
            (flow["state"], flow["target"], tuple(cast("list[str]", flow["circuits"])))
            for flow in shown
        } == {("relaying", SCRUBBED, ("7",)), ("handshake", None, ())}
        assert counters_status(total)["bytes_up"] == 5
        assert counters_status(total)["identities"] == 1
        tor_shown = tor_status(upstream, answers=True)
        assert (tor_shown["state"], tor_shown["bootstrap"]) == ("without control port", None)
        unscrubbed = [flow_status(flow, {}, safe=False)["target"] for flow in flows]
        assert "marked.ex:80" in unscrubbed
        assert "marked" not in (json.dumps(answer) + text).lower()
        assert 'isoproxy_connections{listener="default",state="relaying"} 1\n' in text
        assert 'isoproxy_connections{listener="default",state="handshake"} 1\n' in text
        assert 'isoproxy_relay_bytes_total{direction="up",path="copy"} 5\n' in text
        assert 'isoproxy_relay_bytes_total{direction="up",path="splice"} 0\n' in text
        assert "isoproxy_isolation_keys 8\n" in text
        assert "isoproxy_upstream_up 1\n" in text

        writer.close()
        idle.close()
        await front.drain(5)
        collect(metrics, front, upstream, tor_answers=False)
        text = metrics.exposition()
        assert 'isoproxy_connections{listener="default",state="relaying"} 0\n' in text
        assert "isoproxy_upstream_up 0\n" in text
        dialer.close()
        reactor.close()
        await upstream.stop()
