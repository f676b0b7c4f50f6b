"""What stream processes are told, whatever the configuration."""

from __future__ import annotations

import pytest

from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.options import Fallback
from isoproxy.config import Config, load
from isoproxy.daemon.settings.front import listener_settings
from isoproxy.daemon.settings.streams import lookup_dialer, stream_processes, stream_settings
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.workers.messages import Settings

SOCKS = Endpoint.unix("/socks")
ONIONS = {"a" * 56: "alice"}
INBOUND = {"node": InboundSettings(MAINNET, Target.parse("127.0.0.1", 8333))}


def configured(*settings: str) -> Config:
    return load(None, settings).config


def told(config: Config, count: int = 2) -> list[Settings]:
    listeners = tuple(listener_settings(config).values())
    return [
        stream_settings(config, SOCKS, listeners, INBOUND, ONIONS, (), index, count, None)
        for index in range(count)
    ]


def test_the_parts_of_all_are_what_is_configured() -> None:
    config = configured(
        "limits.max_connections=1001",
        "limits.max_connections_per_client=999",
        "limits.max_pending_circuits=23",
        "bitcoin.proxy.0.address=127.0.0.1:1324",
        "bitcoin.proxy.0.max_connections=5",
    )
    parts = told(config)
    assert {part.dialer.onions_of_listeners["a" * 56] for part in parts} == {"alice"}
    assert sum(part.limits.max_connections for part in parts) == 1001
    assert sum(part.limits.max_connections_per_client for part in parts) == 999
    circuits = sum(part.dialer.max_pending_circuits for part in parts)
    assert circuits + lookup_dialer(config, SOCKS).max_pending_circuits == 23
    proxies = [plan.proxy.max_connections for part in parts for plan in part.bitcoin.proxies]
    assert proxies == [3, 2]
    assert sum(part.bitcoin.inbound["node"].max_connections for part in parts) == 125


def test_what_is_too_little_to_divide_is_for_the_first() -> None:
    one = "bitcoin.proxy.0.max_connections=1"
    first, second = told(configured("bitcoin.proxy.0.address=127.0.0.1:1324", one))
    assert len(first.bitcoin.proxies) == 1
    assert second.bitcoin.proxies == ()


def test_what_is_configured_arrives() -> None:
    config = configured(
        "listener.0.address=127.0.0.1:1",
        "listener.1.address=127.0.0.1:2",
        "bitcoin.v1_fallback=never",
        "bitcoin.ports=[1, 2]",
        "names.timeout_s=7",
        "observe.log_level=debug",
    )
    (settings,) = told(config, 1)
    assert [listener.endpoint.port for listener in settings.listeners] == [1, 2]
    assert settings.bitcoin.carrying.fallback is Fallback.NEVER
    assert settings.bitcoin.carrying.ports == {1, 2}
    assert settings.name_deadline_s == 7
    assert settings.log == ("debug", "text", True)
    (off,) = told(configured("bitcoin.v2=off"), 1)
    assert off.bitcoin.carrying.ports == frozenset()


@pytest.mark.parametrize(("workers", "circuits", "count"), [(1, 24, 1), (64, 24, 3), (64, 15, 1)])
def test_as_many_processes_as_cores_and_budgets_allow(
    workers: int, circuits: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    config = configured(f"limits.workers={workers}", f"limits.max_pending_circuits={circuits}")
    assert stream_processes(config) == count
