"""What can be set about BIP324 connections; every default is the plain protocol.

`docs/bip324.md` says of each option what it costs and what it gives away.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from enum import Enum
from random import SystemRandom
from typing import Final

from isoproxy.bitcoin.bip324.ellswift import MAX_PREFIX, KeyPair
from isoproxy.bitcoin.bip324.transport import MAX_SENT_GARBAGE, Transport
from isoproxy.bitcoin.messages import Network
from isoproxy.bitcoin.v1 import VERSION, VersionRewrite

MAX_DECOY: Final = 65_535
SHORT_GARBAGE: Final = 175
"""Bytes of garbage that, with the key, are fewer than ten v1 headers: for ten that it cannot
read in one connection a v1 peer (bcoin) bans the address they came from."""
_DICE: Final = SystemRandom()


class Fallback(Enum):
    """When a peer that does not answer in v2 may be spoken to in v1."""

    NEVER = "never"
    ONION_ONLY = "onion-only"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class DecoyPolicy:
    """Decoys to send: on average `per_minute`, at random times, of random sizes.

    Sizes (bytes of contents) lie between `smallest` and `largest`; with `logarithmic`
    small ones are as much more frequent as in real P2P traffic, else all are alike.
    `before_version` decoys precede the version packet.
    """

    per_minute: float = 0.0
    smallest: int = 1
    largest: int = 1024
    logarithmic: bool = True
    before_version: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.smallest <= self.largest <= MAX_DECOY:
            raise ValueError("decoy sizes lie between 0 and 65535 bytes, smallest first")
        if not 0 <= self.per_minute <= 6000 or not 0 <= self.before_version <= 16:
            raise ValueError("at most 6000 decoys a minute, and 16 before the version packet")

    def size(self) -> int:
        """The size of one decoy."""
        if not self.logarithmic:
            return _DICE.randint(self.smallest, self.largest)
        low, high = math.log(self.smallest + 1), math.log(self.largest + 2)
        return min(self.largest, int(math.exp(_DICE.uniform(low, high))) - 1)

    def pause(self) -> float:
        """Seconds until the next decoy; infinite if none are to be sent."""
        return _DICE.expovariate(self.per_minute / 60) if self.per_minute else math.inf


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds a connection may take: to the peer's first byte, from there to its version
    packet, and without any byte in either direction; `linger` is for the last bytes.

    `silence` is to the first byte of a peer that may be spoken to in v1 instead: less than
    the ten to thirty seconds after which most clients give up."""

    first_byte: float = 60.0
    silence: float = 8.0
    handshake: float = 60.0
    idle: float = 20 * 60.0
    linger: float = 10.0

    def with_short_silence(self) -> Deadlines:
        """The same for a peer that may turn out to speak v1."""
        return replace(self, first_byte=min(self.first_byte, self.silence))


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How our side of a v2 connection looks.

    `garbage` is the least and the greatest number of garbage bytes; `prefix` (at most 32
    bytes) is what our key begins with; `version` is what to change in VERSION messages.
    """

    garbage: tuple[int, int] = (0, MAX_SENT_GARBAGE)
    prefix: bytes = b""
    decoys: DecoyPolicy = field(default_factory=DecoyPolicy)
    version: VersionRewrite = field(default_factory=VersionRewrite)

    def __post_init__(self) -> None:
        least, most = self.garbage
        if not 0 <= least <= most <= MAX_SENT_GARBAGE:
            raise ValueError("garbage is 0 to 4094 bytes long, least first")
        if len(self.prefix) > MAX_PREFIX:
            raise ValueError("at most 32 bytes of a BIP324 key can be chosen")
        if self.prefix[4:16] == VERSION:
            raise ValueError("a key that begins like a v1 message would be taken for one")

    def with_short_garbage(self) -> TransportOptions:
        """The same for a peer that may turn out to speak v1."""
        least, most = self.garbage
        return replace(self, garbage=(min(least, SHORT_GARBAGE), min(most, SHORT_GARBAGE)))

    def transport(self, network: Network, *, initiator: bool) -> Transport:
        """A new connection's transport, with its own key and garbage."""
        decoys = [bytes(self.decoys.size()) for _ in range(self.decoys.before_version)]
        return Transport(
            network,
            KeyPair.fresh(self.prefix),
            initiator=initiator,
            garbage=os.urandom(_DICE.randint(*self.garbage)),
            decoys=decoys,
        )
