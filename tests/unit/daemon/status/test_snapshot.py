"""A snapshot stays as it was taken."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from isoproxy.daemon.status.snapshot import Snapshot
from tests.unit.daemon.status.kit import snapshot


def test_a_snapshot_does_not_change() -> None:
    taken = snapshot()
    for holder in (taken, taken.tor, taken.traffic, taken.traffic.listeners[0]):
        for field in fields(holder):
            with pytest.raises(FrozenInstanceError):
                setattr(holder, field.name, None)


def test_no_stream_processes_and_no_proxies_are_told_of_unless_there_are_some() -> None:
    taken: Snapshot = snapshot()
    assert (tuple(taken.traffic.workers), tuple(taken.traffic.proxies)) == ((), ())
