"""Lines for whoever started isoproxy: what listens where, and which onion services there are."""

from __future__ import annotations

import contextlib
from typing import Final, TextIO

from isoproxy.daemon.settings.front import describe_listener, flag_names
from isoproxy.isolation import Isolate
from isoproxy.observe.log import logger

_log: Final = logger("daemon")


def announce(line: str, out: TextIO) -> None:
    """Write a line; that no program reads any more is no reason to stop serving, or to leave a
    reload half done."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=out, flush=True)


def announce_listener(name: str, address: str, isolate: Isolate, out: TextIO) -> None:
    """Say, and log, where a listener is and what it isolates by."""
    announce(describe_listener(address, isolate), out)
    _log.notice("listening", listener=name, address=address, isolate=flag_names(isolate))


def announce_transparent(name: str, address: str, isolate: Isolate, out: TextIO) -> None:
    """Say, and log, where connections may be redirected to and what that isolates by."""
    announce(describe_listener(address, isolate, "transparent"), out)
    _log.notice("listening", listener=name, address=address, isolate=flag_names(isolate))


def announce_proxy(name: str, address: str, isolate: Isolate, out: TextIO) -> None:
    """Say, and log, where a Bitcoin proxy is and what it isolates by."""
    announce(describe_listener(address, isolate, "bitcoin"), out)
    _log.notice("listening", proxy=name, address=address, isolate=flag_names(isolate))
