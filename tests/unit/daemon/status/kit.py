"""A snapshot made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isoproxy.bitcoin.flow import Flow
from isoproxy.bitcoin.flows import Totals
from isoproxy.config import load
from isoproxy.daemon.status.snapshot import BitcoinView, ListenerView, Snapshot, TorView, Traffic
from isoproxy.isolation import DEFAULT_ISOLATION, CredentialForm
from isoproxy.workers.report import Report


def traffic(report: Report | None = None, peers: Sequence[Flow] = ()) -> Traffic:
    listener = ListenerView("default", "127.0.0.1:9250", DEFAULT_ISOLATION)
    return Traffic([listener], report or Report(), BitcoinView((), peers, Totals()))


def snapshot(*settings: str, **fields: Any) -> Snapshot:
    """A snapshot by the configuration of `settings`, with `fields` in place of what is dull."""
    dull: dict[str, Any] = {
        "config": load(None, settings).config,
        "pid": 7,
        "uptime_s": 1.26,
        "tasks": 2,
        "epoch": 3,
        "dashboard": None,
        "tor": TorView("system", "ready", True, "0.4.9.1", "ready", True, None),
        "names": {"backend": "none"},
        "cached": 5,
        "traffic": traffic(),
        "circuits": (),
        "form": CredentialForm.PROP351,
    }
    return Snapshot(**dull | fields)
