"""A snapshot made by hand."""

from __future__ import annotations

from typing import Any

from isoproxy.config import load
from isoproxy.daemon.status.snapshot import ListenerView, Snapshot, TorView, Traffic
from isoproxy.isolation import DEFAULT_ISOLATION, CredentialForm
from isoproxy.workers.report import Report


def traffic(report: Report | None = None) -> Traffic:
    listener = ListenerView("default", "127.0.0.1:9250", DEFAULT_ISOLATION)
    return Traffic([listener], (), report or Report())


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
        "lookups": {},
        "traffic": traffic(),
        "circuits": (),
        "form": CredentialForm.PROP351,
    }
    return Snapshot(**dull | fields)
