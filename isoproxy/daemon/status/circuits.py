"""Which of Tor's circuits carry whose streams, where a control port tells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from isoproxy.isolation import (
    CredentialForm,
    Credentials,
    IsolationKey,
    Purpose,
    upstream_credentials,
)
from isoproxy.tor.control.events import Circuit

Carrier = tuple[IsolationKey, Purpose] | Credentials
"""What a stream's circuit is chosen by; of a worker's stream, what it said to Tor."""
_DIGITS: Final = 8
CircuitIds = Mapping[Carrier, Sequence[str]]
"""Tor's numbers of the circuits of each carrier."""


def circuits_of(
    circuits: Iterable[Circuit], carriers: Iterable[Carrier], form: CredentialForm
) -> CircuitIds:
    """Tor's numbers of those `circuits` that are built and carry the streams of each carrier.

    Tor knows the streams by credentials of `form`.
    """
    found: defaultdict[tuple[bytes | None, bytes | None], list[str]] = defaultdict(list)
    for circuit in circuits:
        if circuit.status == "BUILT":
            found[circuit.username, circuit.password].append(circuit.id)
    return {
        carrier: found.get((own.username, own.password), [])
        for carrier in carriers
        for own in [_credentials(carrier, form)]
    }


def relays_of(circuits: Iterable[Circuit], numbers: Container[str]) -> dict[str, list[str]]:
    """The relays of the circuits with these numbers, by the first digits of their fingerprints.

    The first of each is not told: it is the same for months, and would name whoever has it.
    """
    return {
        circuit.id: ["guard", *(hop.fingerprint[:_DIGITS] for hop in circuit.path[1:])]
        for circuit in circuits
        if circuit.id in numbers and circuit.path
    }


def _credentials(carrier: Carrier, form: CredentialForm) -> Credentials:
    return carrier if isinstance(carrier, Credentials) else upstream_credentials(*carrier, form)
