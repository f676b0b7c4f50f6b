"""What a reload applies, and what waits for a restart."""

from __future__ import annotations

from isoproxy.daemon.reloading import Reloaded


def test_what_a_reload_applies_and_what_waits() -> None:
    changed = ("limits.workers", "listener.0.isolate", "names.backend", "tor.mode")
    assert Reloaded.of(changed).after_a_restart == ("limits.workers", "tor.mode")
