"""Chains of headers alone, true ones and forged ones, by the main network's difficulty rule.

A `Forge` mines on top of a common beginning, at a difficulty that is found at once.  What a
forger does is open: how far apart its blocks are dated, which of them it did the work for,
and whom it shows what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from isoproxy.namecoin.chain.auxpow import Header, bits_of
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.params import REGTEST, Anchor, ChainParams
from isoproxy.namecoin.chain.transaction import double_sha256
from tests.kit.electrum_server import Fault, Lie
from tests.kit.namecoin.chain import Block, RegtestChain
from tests.kit.namecoin.mining import AUXPOW_VERSION, PLAIN_VERSION, MergeMining, header_bytes

SPACING_S: Final = 600
_START: Final = 1_700_000_000
_BITS: Final = bits_of(1 << 253)
"""Eight tries for a block; the rule may make that four times as many, or two."""


def headers_only(header: bytes) -> Block:
    """A block of which there is nothing but its header."""
    return Block(b"", header, double_sha256(header[:80])[::-1].hex(), {})


GENESIS: Final = headers_only(header_bytes(PLAIN_VERSION, bytes(32), bytes(32), _START, _BITS))

RULES: Final[ChainParams] = replace(
    REGTEST,
    genesis=bytes.fromhex(GENESIS.block_hash)[::-1],
    anchor=Anchor(0, bytes.fromhex(GENESIS.block_hash)[::-1]),
    retargets=True,
    expiry=36_000,
)


def all_done(height: int) -> bool:
    """An honest miner's work."""
    return True


class Forge:
    """Grows chains; `salt` makes its blocks differ from those of others."""

    def __init__(self, salt: int, beginning: Sequence[Block] = (GENESIS,)) -> None:
        self._salt = salt
        self.blocks = list(beginning)
        rules = HeaderChain(RULES)
        rules.extend_down([Header.parse(self.blocks[0].header[:80])])
        self._rules = rules.branch(0)
        for block in self.blocks[1:]:
            self._rules.append_checked(Header.parse(block.header[:80]))

    def grow(
        self,
        count: int,
        spacing: int = SPACING_S,
        is_done: Callable[[int], bool] = all_done,
    ) -> Forge:
        """Put `count` blocks on top, dated `spacing` s apart; the work is done where
        `is_done(height)`."""
        for _ in range(count):
            height, before = len(self.blocks), self.blocks[-1]
            when = before.time + spacing
            plain = header_bytes(
                AUXPOW_VERSION,
                bytes.fromhex(before.block_hash)[::-1],
                self._salt.to_bytes(32, "little"),
                when,
                self._rules.required_bits(height, when),
            )
            header = MergeMining(enough=is_done(height)).mine(plain)
            self._rules.append_checked(Header.parse(plain))
            self.blocks.append(headers_only(header))
        return self

    @property
    def work(self) -> int:
        """The work that its blocks claim."""
        return self._rules.work

    def chain(self) -> RegtestChain:
        """What a server serves."""
        return RegtestChain(self.blocks)


def without_the_oldest_half(fork: int, tip: int) -> Callable[[int], bool]:
    """The cheapest forgery of a suffix: no work for the older half of it, and one block more."""
    missing = range(fork + 1, fork + 1 + (tip - fork) // 2 + 1)
    return lambda height: height not in missing


def withholding(heights: Callable[[int], bool]) -> Lie:
    """A server that refuses to give these headers with their proofs."""

    def lie(method: str, params: list[Any], result: Any) -> Any:
        if method == "blockchain.block.header" and heights(params[0]):
            raise Fault(1)
        if method == "blockchain.block.headers" and len(params) == 2:
            start, count = params
            if any(heights(height) for height in range(start, start + count)):
                raise Fault(1)
        return result

    return lie
