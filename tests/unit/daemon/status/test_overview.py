"""What the status shows of a snapshot, and what it never does."""

from __future__ import annotations

import json
from typing import Any, cast

from isoproxy.daemon.status.overview import overview
from isoproxy.daemon.status.snapshot import TorView
from isoproxy.front.statistics import Counters, FlowView
from isoproxy.isolation import APP, CredentialForm, upstream_credentials
from isoproxy.observe.log import SCRUBBED, Sensitive
from isoproxy.tor.control.events import Bootstrap, Circuit
from isoproxy.workers.report import Report
from tests.unit.bitcoin.ends import key
from tests.unit.daemon.status.kit import snapshot, traffic

KEY = key(b"one")
RELAYING = FlowView(
    "default", "relaying", KEY.label, 5.0, 7, 9, (3, 2), (KEY, APP), Sensitive("marked.ex:80")
)
OLDER = FlowView("default", "opening", KEY.label, 60.0, 1, 0, (0, 0), (KEY, APP))
GREETING = FlowView("default", "handshake", "", 99.0, 0, 0)


def report() -> Report:
    counters = Counters(opened=5, bytes_up=100, bytes_down=200)
    return Report(counters, flows=[GREETING, RELAYING, OLDER], lookups_refused=1)


def shown(*settings: str, max_flows: int | None = None, **fields: Any) -> dict[str, Any]:
    answer = overview(snapshot(*settings, **fields), max_flows=max_flows)
    return cast("dict[str, Any]", json.loads(json.dumps(answer)))


def test_flows_are_shown_by_key_and_age_without_a_target() -> None:
    answer = shown(traffic=traffic(report()))
    assert [(flow["state"], flow["age_s"]) for flow in answer["flows"]] == [
        ("opening", 60.0),
        ("relaying", 5.0),
        ("handshake", 99.0),
    ]
    assert [flow["target"] for flow in answer["flows"]] == [None, SCRUBBED, None]
    assert "marked" not in json.dumps(answer)
    assert answer["listeners"] == [
        {
            "name": "default",
            "address": "127.0.0.1:9250",
            "isolate": ["ClientAddr", "SOCKSAuth"],
            "open": 3,
            "accepted": 0,
        }
    ]


def test_targets_are_shown_where_logging_is_not_safe() -> None:
    answer = shown("observe.safe_logging=false", traffic=traffic(report()))
    assert [flow["target"] for flow in answer["flows"]] == [None, "marked.ex:80", None]
    assert answer["scrubbed"] is False


def test_counters_hold_all_flows_and_the_list_as_many_as_are_wanted() -> None:
    answer = shown(max_flows=1, traffic=traffic(report()))
    assert len(answer["flows"]) == 1
    counters = answer["counters"]
    assert (counters["open"], counters["identities"], counters["opened"]) == (3, 1, 5)
    assert (counters["bytes_up"], counters["bytes_down"]) == (108, 209)
    assert counters["local_lookups_refused"] == 1


def test_a_flow_has_the_circuits_that_tor_has_for_its_key() -> None:
    said = upstream_credentials(KEY, APP, CredentialForm.PROP351)
    circuits = [Circuit("4", "BUILT", username=said.username, password=said.password)]
    answer = shown(traffic=traffic(report()), circuits=circuits)
    assert [flow["circuits"] for flow in answer["flows"]] == [[], ["4"], []]


def test_how_far_tor_has_come() -> None:
    start = Bootstrap(5, "conn", "connecting", "no route")
    tor = TorView("managed", "starting", False, None, "connecting", False, start)
    answer = shown(tor=tor)["tor"]
    assert answer["bootstrap"] == {"percent": 5, "summary": "connecting", "warning": "no route"}
    assert (answer["mode"], answer["answers"], answer["version"]) == ("managed", False, None)
    assert shown()["tor"]["bootstrap"] is None
