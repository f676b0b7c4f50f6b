"""What a running isoproxy is at one moment; status, metrics and `explain` are made of it.

Theory of operation
    `Daemon.snapshot` collects all of it in one place.  What is told of it, and to whom, is
    decided by the pure functions beside this module: none of them sees the daemon.

Invariants
    A snapshot does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isoproxy.config import Config
from isoproxy.front.statistics import Counters
from isoproxy.isolation import CredentialForm, Isolate
from isoproxy.tor.circuits import CircuitBudget
from isoproxy.tor.control.events import Bootstrap, Circuit
from isoproxy.workers.report import Report


@dataclass(frozen=True, slots=True)
class TorView:
    """How Tor stands: `state` is for a person, `answers` whether its SocksPort did last time."""

    mode: str
    state: str
    answers: bool
    version: str | None
    control: str
    """The control connection's phase."""
    control_ready: bool
    bootstrap: Bootstrap | None
    advice: str | None = None
    """What to do about a start that does not get on."""
    signals: int = 0
    """How many signals to Tor, New Identity among them, were heard of."""


@dataclass(frozen=True, slots=True)
class ListenerView:
    """A listener or a proxy that is open, and what it isolates by."""

    name: str
    address: str
    isolate: Isolate


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everything about streams: what is open, and the report of all processes.

    `proxies` are Bitcoin's; `workers` are the processes that carry streams.
    """

    listeners: Sequence[ListenerView]
    proxies: Sequence[ListenerView]
    report: Report
    workers: Sequence[Mapping[str, object]] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A running isoproxy.

    config      what it serves by
    epoch       how many new identities there were
    dashboard   where the dashboard is, or None
    names       how `.bit` names stand, ready for JSON
    cached      answers in the caches of all identities
    lookups     how many each identity asked for, by label
    circuits    Tor's, where it was asked for them; `form` is what it knows streams by
    """

    config: Config
    pid: int
    uptime_s: float
    tasks: int
    epoch: int
    dashboard: str | None
    tor: TorView
    names: Mapping[str, object]
    cached: int
    lookups: Mapping[str, int]
    traffic: Traffic
    circuits: Sequence[Circuit]
    form: CredentialForm


def own_report(counters: Counters, circuits: CircuitBudget, lookups_refused: int) -> Report:
    """The main process's own share: it carries no stream."""
    return Report(
        counters,
        circuits_pending=circuits.pending,
        circuits_queued=circuits.queued,
        lookups_refused=lookups_refused,
    )
