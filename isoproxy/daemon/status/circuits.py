"""Which of Tor's circuits carry whose streams, where a control port tells."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from isoproxy.errors import OperationError
from isoproxy.isolation import (
    CredentialForm,
    Credentials,
    IsolationKey,
    Purpose,
    upstream_credentials,
)
from isoproxy.tor.control.connection import Control, Phase

Carrier = tuple[IsolationKey, Purpose] | Credentials
"""What a stream's circuit is chosen by; of a worker's stream, what it said to Tor."""
Circuits = Mapping[Carrier, Sequence[str]]
"""Tor's numbers of the circuits of each carrier."""
PATIENCE_S: Final = 0.5
"""Seconds that a status waits for Tor's list of circuits."""


async def circuits_of(
    control: Control, carriers: Iterable[Carrier], form: CredentialForm
) -> Circuits:
    """Tor's numbers of the circuits that carry the streams of each carrier.

    Empty without a control port, or where a filter in front of it does not tell.  Of a Tor
    that is slow (thousands of circuits, a frozen process) what its events have told.
    """
    wanted = set(carriers)
    if not wanted or control.state.phase is not Phase.READY:
        return {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            circuits = await control.refresh_circuits()
    except TimeoutError:
        circuits = control.circuits()
    except OperationError:
        return {}
    found: defaultdict[tuple[bytes | None, bytes | None], list[str]] = defaultdict(list)
    for circuit in circuits:
        if circuit.status == "BUILT":
            found[circuit.username, circuit.password].append(circuit.id)
    credentials = {
        carrier: carrier
        if isinstance(carrier, Credentials)
        else upstream_credentials(*carrier, form)
        for carrier in wanted
    }
    return {
        carrier: found.get((own.username, own.password), []) for carrier, own in credentials.items()
    }
