"""A client's v1 connection carried to its peer as v2, and what to do if the peer cannot.

Theory of operation
    The client's first bytes said that it speaks v1 on a known network; the peer's stream
    is open.  A `Translator` is put between the two.  If the peer closes or stays silent
    for a minute without one byte received, Bitcoin Core's own rule would have it tried
    again in v1, on a new connection.  We may do so only where the settings allow it
    (`Fallback`), never to a peer that has spoken v2 under this key before, and over a
    stream from the same `dial`, which is bound to the key and purpose of the flow: the
    bridge has no other way to open one, in particular no direct one.

    A hostile exit can cut the first stream to see the second in plaintext; that is why
    the default allows it to onion services alone, whose streams are encrypted to the end.

Invariants
    With NEVER, no byte of a client that speaks v1 leaves but in v2.  Both sockets are closed when
    `bridge` returns, however it returns.  Memory of who spoke v2 is kept per isolation
    key: nothing learned under one key shows under another.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Network, Networks
from isoproxy.bitcoin.options import Deadlines, Fallback, TransportOptions
from isoproxy.bitcoin.pump import part, pump
from isoproxy.bitcoin.translator import Ending, Relay, Translator
from isoproxy.bitcoin.v1 import HEADER_LENGTH
from isoproxy.errors import ErrorKind, IsoproxyError
from isoproxy.isolation import IsolationKey
from isoproxy.net.target import Target

Dial = Callable[[], Awaitable[socket.socket]]
"""Opens one more stream to the same peer, under the same key and purpose."""

MAX_KEYS: Final = 4096
MAX_PEERS_PER_KEY: Final = 256
_FALLBACK_ENDINGS: Final = frozenset({Ending.PEER_CLOSED, Ending.PEER_SILENT})


class ProvenV2:
    """Which peers have spoken v2, for each isolation key apart.

    Bounded: of a key's peers, and of the keys, those not used for longest are forgotten
    first.  Forget everything at a new epoch: `isolator.on_new_epoch(proven.forget)`.
    """

    def __init__(self, max_keys: int = MAX_KEYS, max_peers: int = MAX_PEERS_PER_KEY) -> None:
        self._max_keys = max_keys
        self._max_peers = max_peers
        self._keys: OrderedDict[IsolationKey, OrderedDict[Target, None]] = OrderedDict()

    def add(self, key: IsolationKey, peer: Target) -> None:
        """`peer` has proven under `key` that it speaks v2."""
        peers = self._keys.setdefault(key, OrderedDict())
        self._keys.move_to_end(key)
        peers[peer] = None
        peers.move_to_end(peer)
        if len(peers) > self._max_peers:
            peers.popitem(last=False)
        if len(self._keys) > self._max_keys:
            self._keys.popitem(last=False)

    def has(self, key: IsolationKey, peer: Target) -> bool:
        """True if `peer` is remembered under `key`."""
        return peer in self._keys.get(key, ())

    def forget(self) -> None:
        """Forget all peers of all keys."""
        self._keys.clear()


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """How flows are carried; shared by all of them."""

    fallback: Fallback = Fallback.ONION_ONLY
    options: TransportOptions = field(default_factory=TransportOptions)
    deadlines: Deadlines = field(default_factory=Deadlines)

    def recognised(self, networks: Networks) -> Networks:
        """`networks`, closed where no plaintext may leave: of others it must not either."""
        return networks.as_all() if self.fallback is Fallback.NEVER else networks


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class Flow:
    """One client's connection to one peer: whose it is, and what a status page shows.

    `transport` is "detecting" until the peer's version packet is authenticated, then
    "v2"; "v1" after a fallback; "untouched" where the client speaks something else than
    v1, and `network` stays None.  `ended` is None while the flow runs.
    """

    key: IsolationKey
    peer: Target
    network: Network | None = None
    translator: Translator | None = None
    plain: Relay | None = None
    transport: str = "detecting"
    fell_back: bool = False
    ended: Ending | None = None
    dial_error: ErrorKind | None = None

    @property
    def session_id(self) -> str:
        """As the peer shows it: 64 hex digits, "" while there is none."""
        return self.translator.session_id if self.translator is not None else ""

    @property
    def bytes_up(self) -> int:
        """Bytes sent to the peer, on all its streams."""
        translated = self.translator.to_peer.wire if self.translator is not None else 0
        return translated + (self.plain.bytes_up if self.plain is not None else 0)

    @property
    def bytes_down(self) -> int:
        """Bytes received from the peer."""
        translated = self.translator.to_client.wire if self.translator is not None else 0
        return translated + (self.plain.bytes_down if self.plain is not None else 0)


async def bridge(
    client: socket.socket,
    first: bytes,
    peer: socket.socket,
    dial: Dial,
    flow: Flow,
    settings: BridgeSettings,
    proven: ProvenV2,
) -> Ending:
    """Carry one flow to its end.

    `client` and `peer` are connected and non-blocking; `first` is what was read from the
    client already (recognised as v1 of `flow.network`); `dial` opens a second stream if
    a fallback is due.  Closes all sockets.  Errors end the flow, they are not raised.
    """
    try:
        flow.ended = await _carry(client, first, peer, dial, flow, settings, proven)
        await part(client, peer, seconds=settings.deadlines.linger)
        return flow.ended
    finally:
        client.close()
        peer.close()


async def _carry(
    client: socket.socket,
    first: bytes,
    peer: socket.socket,
    dial: Dial,
    flow: Flow,
    settings: BridgeSettings,
    proven: ProvenV2,
) -> Ending:
    its: Flow = weakref.proxy(flow)  # no cycle: the buffers go when the flow does

    def ready() -> None:
        its.transport = "v2"
        proven.add(its.key, its.peer)

    assert flow.network is not None
    translator = Translator(
        flow.network,
        settings.options,
        initiator=True,
        now=asyncio.get_running_loop().time(),
        deadlines=settings.deadlines,
        on_ready=ready,
    )
    flow.translator = translator
    linger = settings.deadlines.linger
    ending = await pump(translator, client, peer, linger=linger, from_client=first)
    if ending not in _FALLBACK_ENDINGS or not _looked_like_v1(translator):
        return ending
    if not _may_fall_back(flow, settings.fallback, proven):
        return Ending.V2_REQUIRED
    peer.close()
    return await _fall_back(client, translator.untranslated(), dial, flow, settings)


def _looked_like_v1(translator: Translator) -> bool:
    """Bitcoin Core's rule: a v1 peer had enough to judge by, and answered nothing at all."""
    return translator.peer_was_silent and translator.sent_to_peer >= HEADER_LENGTH


def _may_fall_back(flow: Flow, policy: Fallback, proven: ProvenV2) -> bool:
    if proven.has(flow.key, flow.peer):
        return False
    return policy is Fallback.ALWAYS or (policy is Fallback.ONION_ONLY and flow.peer.is_onion)


async def _fall_back(
    client: socket.socket, sent: bytes, dial: Dial, flow: Flow, settings: BridgeSettings
) -> Ending:
    """Speak v1 over a second stream of the same key, from the client's first byte on."""
    flow.fell_back = True
    try:
        peer = await dial()
    except IsoproxyError as error:
        flow.dial_error = error.kind
        return Ending.DIAL_FAILED
    flow.transport = "v1"
    plain = flow.plain = Relay(
        now=asyncio.get_running_loop().time(),
        deadlines=settings.deadlines,
        network=flow.network,
        rewrite=settings.options.version,
    )
    linger = settings.deadlines.linger
    with contextlib.closing(peer):
        ending = await pump(plain, client, peer, linger=linger, from_client=sent)
        await part(client, peer, seconds=linger)
        return ending


async def relay(
    client: socket.socket,
    first: bytes,
    peer: socket.socket,
    flow: Flow,
    deadlines: Deadlines,
    networks: Networks = KNOWN_NETWORKS,
) -> Ending:
    """Carry bytes untouched: a client that speaks v2 itself, or no Bitcoin at all.

    `first` is what was read from the client already.  A client that speaks v1 all the same,
    of one of `networks` after a silence or of a known one that is not among them, is ended,
    and so is one whose first bytes after a silence do not tell.
    Closes both sockets.
    """
    flow.transport = "untouched"
    now, refused = asyncio.get_running_loop().time(), networks.with_networks(KNOWN_NETWORKS)
    plain = flow.plain = Relay(now=now, deadlines=deadlines, refused=refused)
    try:
        flow.ended = await pump(plain, client, peer, linger=deadlines.linger, from_client=first)
        await part(client, peer, seconds=deadlines.linger)
        return flow.ended
    finally:
        client.close()
        peer.close()
