"""One straight way for a Bitcoin stream: sniff, translate, fall back, or relay it.

Theory of operation
    The client's first bytes tell what it speaks; meanwhile the peer's pass, so that a
    protocol in which the server speaks first waits for nothing.  v1 of an accepted network
    puts a `Translator` between the two.  Anything else goes through the relay of the front
    end, untouched, but for v1 that must not pass as it is.  The states are in
    `flow.TRANSITIONS`.

    If the peer closes or stays silent without one byte received, Bitcoin Core's own rule
    (`ShouldReconnectV1`, net.cpp) would have it tried again in v1, on a new connection; so
    would exactly a v1 VERSION header in place of its key (BIP324 has responders compare
    these 16 bytes).  We do either only where the settings allow it (`Fallback`), never to
    a peer that has spoken v2 under this key before, and over a stream with the key, purpose
    and target of the flow.

    What speaks v1, and what stayed silent until its client gave up (some wait for two
    seconds), is remembered for an hour (`known_peers`): where v1 is allowed to it the next
    flow of the same key speaks v1 at once, on its first stream.

    A hostile exit can cut the first stream to see the second in plaintext; that is why
    the default allows it to onion services alone, whose streams are encrypted to the end.

Invariants
    With NEVER, no byte of a client that speaks v1 leaves but in v2.  Both sockets are
    closed when `carry` is over.  Errors end the flow, they are not raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from isoproxy.bitcoin.converter import Ending, FirstBytes, Rewriting
from isoproxy.bitcoin.flow import ClosedBy, Event, Flow, V1Reason
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.known_peers import KnownPeers, Spoken
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Network, Networks
from isoproxy.bitcoin.options import Deadlines, Fallback, TransportOptions
from isoproxy.bitcoin.pump import pump
from isoproxy.bitcoin.sniff import MAGIC_LENGTH, Detected, begins_v1, detect, rewrite_version
from isoproxy.bitcoin.translator import Translator
from isoproxy.bitcoin.v1 import HEADER_LENGTH
from isoproxy.errors import ErrorKind, IsoproxyError
from isoproxy.isolation import P2P, IsolationKey, Purpose
from isoproxy.net.lingering_close import lingering_close
from isoproxy.net.target import Target

RelayStream = Callable[[socket.socket, socket.socket, bytes, Flow], Awaitable[ClosedBy]]
"""Relays between a client and a peer until both have ended, and closes both sockets.  The
bytes were read from the client and go to the peer first; what is moved is added to
`flow.relayed`.  Returns whose end came first."""


CLIENT_WAITED_S: Final = 1.0
"""Seconds that a client must have waited before its going says something about the peer; the
least patient ones wait for two, the others for ten to thirty."""


class Dialer(Protocol):
    """Opens streams through Tor."""

    async def connect(
        self, key: IsolationKey, purpose: Purpose, target: Target, *, client: bytes = b""
    ) -> socket.socket:
        """A connected, non-blocking socket; raises IsoproxyError."""
        ...


@dataclass(frozen=True, slots=True)
class CarrySettings:
    """How flows are carried: v1 of which `networks` is translated, and how that looks.

    `ports` are the destination ports whose streams are dialled for Bitcoin at once; streams
    to others are only where `everywhere` is set, and once their clients speak v1.
    """

    fallback: Fallback = Fallback.ONION_ONLY
    options: TransportOptions = field(default_factory=TransportOptions)
    deadlines: Deadlines = field(default_factory=Deadlines)
    networks: Networks = KNOWN_NETWORKS
    ports: frozenset[int] = frozenset()
    everywhere: bool = False

    def recognised(self) -> Networks:
        """The networks, closed where no plaintext may leave: of others it must not either."""
        return self.networks.as_all() if self.fallback is Fallback.NEVER else self.networks

    def allows_v1(self, peer: Target) -> bool:
        """Whether the policy lets `peer` be spoken to in v1."""
        onion = self.fallback is Fallback.ONION_ONLY and peer.is_onion
        return onion or self.fallback is Fallback.ALWAYS


class Carrier:
    """Carries flows.  `settings` may be replaced at any time, for flows to come.

    `registry` and `peers` are shared by all carriers of a process.
    """

    def __init__(
        self,
        dialer: Dialer,
        relay: RelayStream,
        registry: FlowRegistry,
        peers: KnownPeers,
        settings: CarrySettings | None = None,
    ) -> None:
        self._dialer = dialer
        self._relay = relay
        self.registry = registry
        self._peers = peers
        self.settings = settings or CarrySettings()

    @property
    def ports(self) -> frozenset[int]:
        """Destination ports whose streams are for Bitcoin peers."""
        return self.settings.ports

    def is_v1(self, first: bytes) -> bool | None:
        """Whether a client on any port that began with `first` is to be carried.

        None while that is open.
        """
        if not self.settings.everywhere:
            return False
        found = detect(first, self.settings.networks)
        return None if found is Detected.NEED_MORE else found is not Detected.NOT_V1

    def refuse(self, flow: Flow, dial_error: ErrorKind | None = None) -> None:
        """Count a flow of a v1 client that cannot be carried, for want of a stream or of v2."""
        with self.registry.entry(flow):
            flow.dial_error = dial_error
            flow.end(Ending.V2_REQUIRED if dial_error is None else Ending.DIAL_FAILED)

    def sibling(self, settings: CarrySettings) -> Carrier:
        """Another carrier of the same process, with settings of its own."""
        return Carrier(self._dialer, self._relay, self.registry, self._peers, settings)

    async def carry(
        self,
        client: socket.socket,
        early: bytes,
        peer: socket.socket,
        flow: Flow,
        client_id: bytes,
    ) -> None:
        """Carry one flow to its end, and close both sockets.

        `early` is what was read from the client already; `peer` is the stream to
        `flow.peer` that was opened under `flow.key` for the client field `client_id`; from
        it nothing was read.  Both sockets are non-blocking.
        """
        with (
            self.registry.entry(flow),
            contextlib.closing(client),
            contextlib.closing(peer),
            contextlib.suppress(OSError, TimeoutError),
        ):
            first = await self._sniff(client, early, peer, flow, client_id)
            if first is not None:
                flow.on(Event.OTHER_CLIENT)
                flow.end(Ending.HANDED_ON, await self._relay(client, peer, first, flow))

    async def _sniff(
        self, client: socket.socket, early: bytes, peer: socket.socket, flow: Flow, client_id: bytes
    ) -> bytes | None:
        """See what the client speaks; returns what it said if that is not ours to carry."""
        networks, said = self.settings.recognised(), b""

        def judge(held: bytes) -> Network | Detected | None:
            found = detect(held, networks)
            return None if found is Detected.NEED_MORE else found

        first, found = early, judge(early)
        if found is None:
            stage: FirstBytes[Network | Detected] = FirstBytes(
                judge, now=_now(), deadlines=self.settings.deadlines
            )
            if not await _hold(stage, client, peer, flow, self.settings, early):
                return None
            first, found, said = stage.held, stage.verdict, stage.peer_said
            flow.relayed.bytes_down = stage.passed
            if found is None and len(first) > MAGIC_LENGTH:
                found = Detected.FOREIGN  # a header that its client broke off
        if isinstance(found, Network):
            flow.network = found
            await self._v1_client(client, first, peer, said, flow, client_id)
            return None
        if found is Detected.FOREIGN:
            await end(flow, Ending.V2_REQUIRED, self.settings, client, peer)
            return None
        return first

    async def _v1_client(
        self,
        client: socket.socket,
        first: bytes,
        peer: socket.socket,
        said: bytes,
        flow: Flow,
        client_id: bytes,
    ) -> None:
        """Carry a client that speaks v1; `said` is what the peer has said before it."""
        assert flow.network is not None
        assert flow.key is not None
        spoken = await self._v1_allowed(flow)
        reason = None
        if spoken is not Spoken.V2 and begins_v1(said, flow.network):
            reason = V1Reason.PEER_SPEAKS_V1
        elif spoken is Spoken.V1 and not said:
            reason = V1Reason.REMEMBERED
        if reason is not None:
            flow.v1_reason = reason
            flow.on(Event.V1_PEER)
            await relay_v1(client, peer, flow, self.settings, self._relay, from_client=first)
            if not flow.bytes_down:
                self._peers.note(flow.key, flow.peer, Spoken.NOTHING)
        elif not said:
            await self._translate(client, first, peer, flow, client_id, spoken)
        else:
            await end(flow, Ending.V2_REQUIRED, self.settings, client, peer)

    async def _translate(
        self,
        client: socket.socket,
        first: bytes,
        peer: socket.socket,
        flow: Flow,
        client_id: bytes,
        spoken: Spoken,
    ) -> None:
        settings = self.settings
        options, deadlines = settings.options, settings.deadlines
        if spoken is not Spoken.V2:  # it may turn out to speak v1
            options, deadlines = options.with_short_garbage(), deadlines.with_short_silence()
        assert flow.network is not None
        assert flow.key is not None
        translator = Translator(
            flow.network,
            options,
            initiator=True,
            now=_now(),
            deadlines=deadlines,
            on_ready=partial(self._peers.note, flow.key, flow.peer, Spoken.V2),
        )
        flow.translate(translator)
        began = _now()
        ending = await pump(translator, client, peer, linger=deadlines.linger, from_client=first)
        flow.v1_reason = _v1_reason(ending, translator)
        if flow.v1_reason is not None or _gave_up(ending, translator, _now() - began):
            self._peers.note(flow.key, flow.peer, Spoken.V1)
        if flow.v1_reason is None:
            await end(flow, ending, settings, client, peer)
        elif await self._v1_allowed(flow) is not Spoken.V2:
            peer.close()
            flow.on(Event.NO_V2)
            await self._redial(client, translator.untranslated(), flow, client_id)
        else:
            await end(flow, Ending.V2_REQUIRED, settings, client, peer)

    async def _v1_allowed(self, flow: Flow) -> Spoken:
        """What the peer has spoken; V2, which allows no v1, also where the policy does not."""
        assert flow.key is not None
        if not self.settings.allows_v1(flow.peer):
            return Spoken.V2
        return await self._peers.spoken(flow.key, flow.peer)

    async def _redial(
        self, client: socket.socket, sent: bytes, flow: Flow, client_id: bytes
    ) -> None:
        """Speak v1 over a second stream of the same key, from the client's first byte on."""
        assert flow.key is not None
        try:
            peer = await self.dial(flow.key, flow.peer, client_id)
        except IsoproxyError as error:
            flow.dial_error = error.kind
            await end(flow, Ending.DIAL_FAILED, self.settings, client)
            return
        with contextlib.closing(peer):
            flow.on(Event.DIALLED)
            await relay_v1(client, peer, flow, self.settings, self._relay, from_client=sent)

    async def dial(self, key: IsolationKey, peer: Target, client_id: bytes) -> socket.socket:
        """A stream to a Bitcoin peer; raises IsoproxyError."""
        return await self._dialer.connect(key, P2P, peer, client=client_id)


def _v1_reason(ending: Ending, translator: Translator) -> V1Reason | None:
    """Why the peer is to be spoken to in v1, if it is to be.

    Bitcoin Core's rule: a v1 peer had enough to judge by, and answered nothing at all; or
    it answered with what only a v1 peer says.
    """
    if ending is Ending.PEER_SPEAKS_V1:
        return V1Reason.PEER_SPEAKS_V1
    if not translator.peer_was_silent or translator.sent_to_peer < HEADER_LENGTH:
        return None
    silent = {Ending.PEER_CLOSED: V1Reason.PEER_CLOSED, Ending.PEER_SILENT: V1Reason.PEER_SILENT}
    return silent.get(ending)


def _gave_up(ending: Ending, translator: Translator, waited: float) -> bool:
    """Whether a client would wait no longer for a peer that has not said a word."""
    silent = translator.peer_was_silent and translator.sent_to_peer >= HEADER_LENGTH
    return ending is Ending.CLIENT_CLOSED and silent and waited >= CLIENT_WAITED_S


async def relay_v1(
    client: socket.socket,
    peer: socket.socket,
    flow: Flow,
    settings: CarrySettings,
    relay: RelayStream,
    *,
    from_client: bytes = b"",
    from_peer: bytes = b"",
) -> None:
    """Carry v1 as it is, but for a VERSION message of the client's that is to be rewritten.

    `from_client` and `from_peer` were read already.  Ends the flow.
    """
    rewrite, network, relayed = settings.options.version, flow.network, flow.relayed
    assert network is not None

    def judge(held: bytes) -> bytes | None:
        return rewrite_version(held, network, rewrite) if rewrite else held or None

    stage = Rewriting(judge, now=_now(), deadlines=settings.deadlines)
    if not await _hold(stage, client, peer, flow, settings, from_client, from_peer):
        return
    if stage.verdict is None:
        await end(flow, Ending.CLIENT_CLOSED, settings, client, peer)
        return
    # Who came to us is the relay's client, and is the one to be given all before the end.
    if flow.inbound:
        relayed.bytes_up, relayed.bytes_down = stage.passed, len(stage.verdict)
        closed_by = (await relay(peer, client, b"", flow)).mirrored()
    else:
        relayed.bytes_up = len(stage.verdict)
        relayed.bytes_down += stage.passed
        closed_by = await relay(client, peer, b"", flow)
    flow.end(Ending.HANDED_ON, closed_by)


async def _hold(
    stage: FirstBytes[Any],
    client: socket.socket,
    peer: socket.socket,
    flow: Flow,
    settings: CarrySettings,
    from_client: bytes,
    from_peer: bytes = b"",
) -> bool:
    """Hold the client's first bytes; False if that was the end."""
    linger = settings.deadlines.linger
    ending = await pump(
        stage, client, peer, linger=linger, from_client=from_client, from_peer=from_peer
    )
    if ending is not Ending.HANDED_ON:
        await end(flow, ending, settings, client, peer)
    return ending is Ending.HANDED_ON


async def end(flow: Flow, ending: Ending, settings: CarrySettings, *socks: socket.socket) -> None:
    """Note the end, and see that what was sent last arrives."""
    flow.end(ending)
    await lingering_close(*socks, seconds=settings.deadlines.linger)


def _now() -> float:
    return asyncio.get_running_loop().time()
