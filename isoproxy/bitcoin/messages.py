"""Networks and message types, as data: magics, ports, limits, short ids (BIP324).

A v1 message carries its type as 12 bytes of ASCII padded with NUL; a v2 message as one
byte (a short id, 1-255) or as NUL followed by those 12 bytes.  Which id means what belongs
to the network: other chains give ids of 128 and more to types of their own.  Of the ids
that Bitcoin's networks know, 1-28 stand in BIP324 itself and are sent; 29-37 come from
BIP183 and BIP434, are understood when received, and are sent in the long form, which
every peer accepts.

Some magics are the same on Bitcoin and Namecoin (testnet4, signets, regtest); keys depend
on the magic alone, so that is harmless, and the larger of the two chains' limits applies.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

TYPE_LENGTH: Final = 12
MAX_CONTENTS: Final = (1 << 24) - 1
"""Bytes; the length field of BIP324 has 24 bits."""

_TYPE: Final = re.compile(rb"(?=.{12}\Z)[\x20-\x7e]*\x00*", re.DOTALL)


def padded(name: str) -> bytes:
    """The 12 bytes that stand for a message type on the wire."""
    data = name.encode("ascii")
    if not 0 < len(data) <= TYPE_LENGTH:
        raise ValueError("a message type has 1 to 12 characters")
    return data.ljust(TYPE_LENGTH, b"\x00")


def is_type(field: bytes) -> bool:
    """True if the 12 bytes are printable ASCII followed by nothing but NUL."""
    return _TYPE.fullmatch(field) is not None


@dataclass(frozen=True, slots=True, eq=False)
class ShortIds:
    """A network's table of one-byte message types.

    `to_send` maps padded types to ids; `received` has 256 rows, None where an id means
    nothing here.
    """

    to_send: Mapping[bytes, int]
    received: tuple[bytes | None, ...]

    @classmethod
    def of(cls, sent: Iterable[str], understood: Mapping[int, str]) -> ShortIds:
        """`sent` get the ids 1, 2, ...; `understood` are accepted besides."""
        to_send = {padded(name): number for number, name in enumerate(sent, 1)}
        received: list[bytes | None] = [None] * 256
        for name, number in to_send.items():
            received[number] = name
        for number, text in understood.items():
            received[number] = padded(text)
        return cls(to_send, tuple(received))


_SENT: Final = """
    addr block blocktxn cmpctblock feefilter filteradd filterclear filterload getblocks
    getblocktxn getdata getheaders headers inv mempool merkleblock notfound ping pong
    sendcmpct tx getcfilters cfilter getcfheaders cfheaders getcfcheckpt cfcheckpt addrv2
"""
_LONG: Final = """
    version verack wtxidrelay sendaddrv2 sendheaders getaddr sendtxrcncl reject alert
"""

BITCOIN_IDS: Final = ShortIds.of(
    _SENT.split(),
    {
        29: "uproof",
        30: "getuproof",
        31: "uttls",
        32: "getuttls",
        33: "usummary",
        34: "utreexotx",
        35: "uroot",
        36: "geturoot",
        37: "feature",
    },
)

LONG_TYPES: Final = frozenset(padded(name) for name in _LONG.split())
"""Types without a short id that are common enough to be counted by name."""

KNOWN_TYPES: Final = LONG_TYPES | {name for name in BITCOIN_IDS.received if name is not None}
"""Types that are counted by name; all others are counted together."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What a magic stands for.  `max_payload` bytes is the most a v1 message may carry."""

    name: str
    magic: bytes
    port: int
    max_payload: int = 4_000_000
    ids: ShortIds = BITCOIN_IDS

    @property
    def max_contents(self) -> int:
        """The most a v2 packet may carry: type and payload, within 24 bits."""
        return min(1 + TYPE_LENGTH + self.max_payload, MAX_CONTENTS)


_NAMECOIN_PAYLOAD: Final = 32 * 1024 * 1024

MAINNET: Final = Network("mainnet", bytes.fromhex("f9beb4d9"), 8333)
TESTNET3: Final = Network("testnet3", bytes.fromhex("0b110907"), 18333)
TESTNET4: Final = Network("testnet4", bytes.fromhex("1c163f28"), 48333, _NAMECOIN_PAYLOAD)
SIGNET: Final = Network("signet", bytes.fromhex("0a03cf40"), 38333, _NAMECOIN_PAYLOAD)
REGTEST: Final = Network("regtest", bytes.fromhex("fabfb5da"), 18444, _NAMECOIN_PAYLOAD)
BTCD_SIMNET: Final = Network("btcd-simnet", bytes.fromhex("161c141c"), 18555)
NAMECOIN: Final = Network("namecoin", bytes.fromhex("f9beb4fe"), 8334, _NAMECOIN_PAYLOAD)
NAMECOIN_TESTNET: Final = Network(
    "namecoin-testnet", bytes.fromhex("fabfb5fe"), 18334, _NAMECOIN_PAYLOAD
)


def custom_signet(challenge: bytes, *, port: int = SIGNET.port) -> Network:
    """The signet whose blocks satisfy the script `challenge` (BIP325)."""
    if not 0 < len(challenge) <= 0xFFFF:
        raise ValueError("a signet challenge has 1 to 65535 bytes")
    length = (
        bytes([len(challenge)])
        if len(challenge) < 0xFD
        else b"\xfd" + len(challenge).to_bytes(2, "little")
    )
    digest = hashlib.sha256(hashlib.sha256(length + challenge).digest()).digest()
    return Network("signet-" + digest[:4].hex(), digest[:4], port, _NAMECOIN_PAYLOAD)


class Networks:
    """The networks that are recognised, by magic.

    If they are `closed`, v1 of any other network is told from what is not v1 at all.
    """

    def __init__(self, networks: Iterable[Network], *, closed: bool = False) -> None:
        self._by_magic = {network.magic: network for network in networks}
        self._beginnings = frozenset(
            magic[:length] for magic in self._by_magic for length in range(len(magic))
        )
        self.closed = closed

    def __iter__(self) -> Iterator[Network]:
        return iter(self._by_magic.values())

    def get(self, magic: bytes) -> Network | None:
        """The network of these 4 bytes, None if it is not one of ours."""
        return self._by_magic.get(magic)

    def may_begin(self, first: bytes) -> bool:
        """Whether `first`, fewer bytes than a magic, may become one of ours."""
        return first in self._beginnings

    def named(self, name: str) -> Network:
        """Raises KeyError for a name that is none of `names`."""
        return {network.name: network for network in self}[name]

    def with_networks(self, more: Iterable[Network]) -> Networks:
        """These and `more`, for instance custom signets."""
        return Networks([*self, *more], closed=self.closed)

    def as_all(self) -> Networks:
        """These, closed."""
        return Networks(self, closed=True)


KNOWN_NETWORKS: Final = Networks(
    (
        MAINNET,
        TESTNET3,
        TESTNET4,
        SIGNET,
        REGTEST,
        BTCD_SIMNET,
        NAMECOIN,
        NAMECOIN_TESTNET,
    )
)
