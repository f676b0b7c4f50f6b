"""The rules in which Namecoin's networks differ, and what is trusted of each from the start.

A *trust anchor* is a block known to be in the chain, by height and hash.  It is the
only thing the light client believes without proof: the hash commits to every block
before it, so headers below it need no proof of work, only links.  It comes with the
release, and can be renewed from a Namecoin Core of one's own.

`work` is a lower bound of the chain work up to and including the anchor.  For the
main network's anchor only the low 96 bits of Namecoin Core's minimum chain work are
on record here; bits above them could only add, so they bound it from below.

A *checkpoint* is the root of a Merkle tree over all block hashes up to a height
(`merkle.checkpoint_root`); where one is configured, single headers below it are
proven instead of downloading their neighbours.

Specification: Namecoin Core's `kernel/chainparams.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RETARGET_INTERVAL: Final = 2016
TARGET_TIMESPAN_S: Final = 14 * 24 * 3600
TARGET_SPACING_S: Final = 600
CHAIN_ID: Final = 1
"""Namecoin's chain id in merged mining."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A block taken on trust; `block_hash` in internal byte order."""

    height: int
    block_hash: bytes
    work: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`root` of the tree over block hashes 0...`height`, in internal byte order."""

    height: int
    root: bytes


@dataclass(frozen=True, slots=True)
class ChainParams:
    """Consensus rules of one network.

    `legacy_before` is the height below which version-1 headers are allowed, None if
    always.  `min_difficulty_since` is the time (s since 1970) after which a late block
    may have the least difficulty, None if never.  `version_floors` lists (height, least
    base version).  `expiry` is in blocks.
    """

    name: str
    genesis: bytes
    anchor: Anchor
    pow_limit: int
    expiry: int
    legacy_before: int | None
    auxpow_from: int
    strict_chain_id: bool
    retargets: bool = True
    min_difficulty_since: int | None = None
    version_floors: tuple[tuple[int, int], ...] = ()


def hash_from_hex(text: str) -> bytes:
    """A hash as people write it (byte-reversed hex, 64 digits) in internal byte order."""
    raw = bytes.fromhex(text)
    if len(raw) != 32:
        raise ValueError("a block hash has 64 hexadecimal digits")
    return raw[::-1]


_MAIN_GENESIS: Final = hash_from_hex(
    "000000000062b72c5e2ceb45fbc8587e807c155b0da735e6483dfba2f0a9c770"
)
_TEST_GENESIS: Final = hash_from_hex(
    "00000007199508e34a9ff81e6ec0c477a4cccff2a4767a8eee39c11db367b008"
)
_REGTEST_GENESIS: Final = hash_from_hex(
    "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
)

MAINNET: Final = ChainParams(
    name="mainnet",
    genesis=_MAIN_GENESIS,
    anchor=Anchor(
        815000,
        hash_from_hex("46c38b14b25fef782cc454cac284b720f58ad414d2c323a980ede420da6affcf"),
        work=0xA88F4530BB8EACEAFFDE5C50,
    ),
    pow_limit=(1 << 224) - 1,
    expiry=36000,
    legacy_before=19200,
    auxpow_from=19200,
    strict_chain_id=True,
    version_floors=((335000, 4), (250000, 3)),
)

TESTNET: Final = ChainParams(
    name="testnet",
    genesis=_TEST_GENESIS,
    anchor=Anchor(0, _TEST_GENESIS),
    pow_limit=(1 << 228) - 1,
    expiry=36000,
    legacy_before=None,
    auxpow_from=0,
    strict_chain_id=False,
    min_difficulty_since=1394838000,
    version_floors=((130000, 4),),
)

REGTEST: Final = ChainParams(
    name="regtest",
    genesis=_REGTEST_GENESIS,
    anchor=Anchor(0, _REGTEST_GENESIS),
    pow_limit=(1 << 255) - 1,
    expiry=30,
    legacy_before=0,
    auxpow_from=0,
    strict_chain_id=True,
    retargets=False,
)

NETWORKS: Final = {network.name: network for network in (MAINNET, TESTNET, REGTEST)}
