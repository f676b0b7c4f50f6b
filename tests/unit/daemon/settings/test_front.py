"""What listeners and dialers are built with, as configured."""

from __future__ import annotations

from isoproxy.config import load
from isoproxy.daemon.settings.front import (
    describe_listener,
    dialer_settings,
    front_limits,
    listener_settings,
    top_levels,
)
from isoproxy.isolation import Isolate, shared_group
from isoproxy.namecoin.value.name import Route
from isoproxy.net.endpoint import Endpoint


def test_listeners_have_what_they_are_configured_with() -> None:
    config = load(
        None,
        [
            "listener.0.address=127.0.0.1:1",
            "listener.0.session_group=3",
            'listener.0.isolate=["DestPort"]',
            "listener.1.address=unix:/run/a",
            "listener.1.mode=0600",
            "listener.1.require_auth=true",
        ],
    ).config
    first, second = listener_settings(config).values()
    assert first.rule.listener.group == shared_group(3)
    assert first.rule.listener.isolate is Isolate.DEST_PORT
    assert (second.name, second.mode, second.rule.require_auth) == ("listener2", 0o600, True)
    assert second.rule.unix
    assert describe_listener("here", Isolate.NOTHING) == "listening socks here isolate=nothing"


def test_where_no_name_is_resolved_names_of_ours_are_refused_and_never_sent_to_tor() -> None:
    on, off = load(None, []).config, load(None, ["names.backend=none"]).config
    assert top_levels(on.names).route("a.bit") is Route.NAMECOIN
    assert top_levels(off.names).route("a.bit") is Route.REFUSE
    for config in (on, off):
        assert "bit" in dialer_settings(config, Endpoint.unix("/s")).never_sent_to_tor


def test_limits_are_those_of_the_configuration() -> None:
    settings = ["limits.max_connections=9000", "limits.idle_timeout_s=8", "limits.dial_timeout_s=7"]
    config = load(None, settings).config
    limits = front_limits(config)
    assert (limits.max_connections, limits.idle_timeout_s) == (9000, 8)
    assert dialer_settings(config, Endpoint.unix("/s")).timeout_s == 7
