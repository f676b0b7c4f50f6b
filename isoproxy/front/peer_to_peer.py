"""Streams to Bitcoin peers: v1 clients are carried as v2, all others untouched.

Theory of operation
    On the configured ports a stream has a purpose of its own, and so circuits of its own.
    Once it is open the client's first bytes tell what it speaks: the v1 prefix of a known
    network puts the bridge between client and peer; anything else (a client that speaks
    v2 itself, another protocol) is relayed as it is, but for v1 of an unknown network where
    no plaintext may leave.  A client that is silent for a moment
    may still do either; if its peer speaks first, it is no Bitcoin peer.

Invariants
    A second stream, which a fallback to v1 needs, is dialled with the same key and the
    same target; the bridge is given nothing else to dial with.  Both sockets are closed
    when `carry` returns, however it returns, unless it gives them back `Untranslated`.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Final

from isoproxy.bitcoin.bridge import BridgeSettings, Flow, bridge, relay
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Network, Networks
from isoproxy.bitcoin.sniff import read_late_opening, read_opening
from isoproxy.bitcoin.translator import Ending
from isoproxy.bitcoin.v1 import PREFIX_LENGTH, Detected, detect
from isoproxy.isolation import P2P, Isolator
from isoproxy.tor.dialer import Dialer

SILENCE_S: Final = 3.0
"""Seconds after which a client that says nothing may be one whose peer speaks first."""
PATIENCE_S: Final = 60.0
"""Seconds a client that began like v1 may take for the rest of the prefix."""


@dataclass(frozen=True, slots=True, repr=False)
class Untranslated:
    """A stream that is not v1; `first` was read from the client and is still to be sent."""

    first: bytes


class PeerToPeer:
    """The Bitcoin side of a front end.

    `ports` are the destination ports it claims; `registry` is shared with other doors to
    the same peers (the proxies).
    """

    def __init__(
        self,
        dialer: Dialer,
        isolator: Isolator,
        *,
        ports: frozenset[int],
        settings: BridgeSettings | None = None,
        registry: FlowRegistry | None = None,
        networks: Networks = KNOWN_NETWORKS,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._dialer = dialer
        self.networks = networks
        self._silence_s = silence_s
        self.ports = ports
        self.settings = settings if settings is not None else BridgeSettings()
        self.registry = registry if registry is not None else FlowRegistry()
        isolator.on_new_epoch(self.registry.proven.forget)

    async def carry(
        self, client: socket.socket, early: bytes, peer: socket.socket, flow: Flow, whose: bytes
    ) -> Untranslated | None:
        """Carry one stream to its end, or say that it is not to be translated.

        `early` is what the client has sent already; `peer` is the stream to `flow.peer`
        that was opened under `flow.key` on behalf of the client field `whose`.
        """
        with contextlib.ExitStack() as both, contextlib.suppress(OSError, TimeoutError):
            both.enter_context(client)
            both.enter_context(peer)
            networks = self.settings.recognised(self.networks)
            first, network = await read_opening(
                client,
                networks,
                silence=self._silence_s,
                patience=PATIENCE_S,
                first=early,
            )
            deadlines = self.settings.deadlines
            with self.registry.entry(flow):
                if not first:
                    first, network = await read_late_opening(
                        client, peer, networks, patience=PATIENCE_S, idle=deadlines.idle
                    )
                if isinstance(network, Network):
                    flow.network = network
                    await self._bridge(client, first, peer, flow, whose)
                elif network is Detected.FOREIGN:
                    flow.ended = Ending.V2_REQUIRED
                elif first and _is_not_v1(first, networks):
                    flow.transport = "untouched"
                    both.pop_all()
                    return Untranslated(first)
                else:
                    await relay(client, first, peer, flow, deadlines, networks)

        return None

    async def _bridge(
        self, client: socket.socket, first: bytes, peer: socket.socket, flow: Flow, whose: bytes
    ) -> None:
        async def dial() -> socket.socket:
            return await self._dialer.connect(flow.key, P2P, flow.peer, client=whose)

        await bridge(client, first, peer, dial, flow, self.settings, self.registry.proven)


def _is_not_v1(first: bytes, networks: Networks) -> bool:
    """Whether a client began with what is v1 of no network, recognised or known."""
    every = networks.with_networks(KNOWN_NETWORKS)
    return detect(first[:PREFIX_LENGTH], every) is Detected.NOT_V1
