"""A chain of headers that grows from a trust anchor in both directions.

Theory of operation
    The chain holds headers of consecutive heights, 80 bytes each, in one flat buffer.
    It begins with the anchor and what the rules need from below it
    (`first_height_needed`), grows *down* by hash links alone, since the anchor's hash
    commits to everything before it, and grows *up* by proof of work.

    Upward growth goes through a `Branch`: headers on top of some block of the chain,
    each checked fully as it comes (link, difficulty, median time, version, work) while
    the chain stays as it is.  A branch is adopted only when it has more work than the
    part of the chain it would replace; with equal work the one that was first stays.
    No branch forks below the anchor.

    Above the anchor a header is *proven* once its proof of work was checked.  A branch may
    hold others, whose links, difficulty, times and versions alone were, if it replaces
    nothing, and if what `sampling` asks for is proven.  So what replaces a block is proven
    in full, whatever the block is.

    Difficulty: every 2016 blocks the target is scaled by the time the last window took,
    clamped to a factor of 4.  Since merged mining began, the window's first block is the
    2016th before the last, 2015th before that.  Median time: a block's time exceeds the
    median of the eleven before it.

Invariants
    Heights `base...tip` are all present and linked.  A header enters upward only after
    every check, the proof of work of some excepted; the newest `FULL_TAIL` above the anchor
    are proven.  Nothing is removed except by `adopt`.

Specification: "Block chain" of Bitcoin's developer reference; Namecoin Core's `pow.cpp`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from isoproxy.errors import LocalProtocolError, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import (
    HEADER_LENGTH,
    Header,
    HeaderRejected,
    MinedHeader,
    bits_of,
    check_proof_of_work,
    target_of,
)
from isoproxy.namecoin.chain.cooperative import Cooperative
from isoproxy.namecoin.chain.params import (
    RETARGET_INTERVAL,
    TARGET_SPACING_S,
    TARGET_TIMESPAN_S,
    Anchor,
    ChainParams,
)
from isoproxy.namecoin.chain.sampling import FULL_TAIL
from isoproxy.namecoin.chain.transaction import double_sha256

MEDIAN_SPAN: Final = 11
MAX_FUTURE_S: Final = 2 * 3600


@lru_cache(maxsize=256)
def work_of(bits: int) -> int:
    """The expected number of hashes that a block of this difficulty takes."""
    return (1 << 256) // (target_of(bits) + 1)


def first_height_needed(network: ChainParams, anchor: Anchor) -> int:
    """The lowest height without which the rules above `anchor` cannot be applied."""
    needed = anchor.height - MEDIAN_SPAN + 1
    if network.retargets:
        window = anchor.height // RETARGET_INTERVAL * RETARGET_INTERVAL
        needed = min(needed, window - 1)
    return max(0, needed)


class HeaderFromTheFuture(HeaderRejected):
    """A header is dated too far ahead: of the server's making, or our clock is slow."""

    def __init__(self) -> None:
        super().__init__(0, "a header lies in the future; check this computer's clock")


class _Context(ABC):
    """Headers by height, as the difficulty and time rules look at them."""

    network: ChainParams

    @abstractmethod
    def _locate(self, height: int) -> tuple[bytearray, int]:
        """The buffer that holds the header at `height`, and its offset there."""

    @abstractmethod
    def lowest(self) -> int:
        """The lowest height there is."""

    def header(self, height: int) -> Header:
        """The header at `height`; LocalProtocolError if it is not here."""
        raw, at = self._locate(height)
        return Header.parse(bytes(raw[at : at + HEADER_LENGTH]))

    def time(self, height: int) -> int:
        """The time of the block at `height`, s since 1970."""
        raw, at = self._locate(height)
        return int.from_bytes(raw[at + 68 : at + 72], "little")

    def bits(self, height: int) -> int:
        """The compact target of the block at `height`."""
        raw, at = self._locate(height)
        return int.from_bytes(raw[at + 72 : at + 76], "little")

    def required_bits(self, height: int, time: int) -> int:
        """The difficulty that a block at `height` with this `time` must have."""
        network = self.network
        if not network.retargets:
            return bits_of(network.pow_limit)
        if height % RETARGET_INTERVAL:
            since = network.min_difficulty_since
            if since is not None and time > since:
                return self._test_network_bits(height, time)
            return self.bits(height - 1)
        back = RETARGET_INTERVAL - 1
        if height - 1 >= network.auxpow_from and height > RETARGET_INTERVAL:
            back = RETARGET_INTERVAL
        took = self.time(height - 1) - self.time(height - 1 - back)
        took = max(TARGET_TIMESPAN_S // 4, min(took, TARGET_TIMESPAN_S * 4))
        target = target_of(self.bits(height - 1))
        return bits_of(min(target * took // TARGET_TIMESPAN_S, network.pow_limit))

    def _test_network_bits(self, height: int, time: int) -> int:
        """A late block, or one dated before its predecessor, may have least difficulty."""
        least = bits_of(self.network.pow_limit)
        before = self.time(height - 1)
        if time < before or time > before + 2 * TARGET_SPACING_S:
            return least
        at = height - 1
        while at > self.lowest() and at % RETARGET_INTERVAL and self.bits(at) == least:
            at -= 1
        return self.bits(at)

    def median_time(self, height: int) -> int:
        """The median time of the blocks up to and including `height`."""
        lowest = max(self.lowest(), height - MEDIAN_SPAN + 1)
        times = sorted(self.time(at) for at in range(lowest, height + 1))
        return times[len(times) // 2]


class HeaderChain(_Context):
    """The best chain known; see the module's text.  Not safe for use by several threads."""

    def __init__(self, network: ChainParams, anchor: Anchor | None = None) -> None:
        self.network = network
        self.anchor = anchor or network.anchor
        self._base = self.anchor.height + 1
        self._raw = bytearray()
        self._proven = bytearray()
        self._work = self.anchor.work
        self._tip_hash = self.anchor.block_hash

    @property
    def is_anchored(self) -> bool:
        """True once the anchor and what the rules need below it are here."""
        return bool(self._raw)

    @property
    def base_height(self) -> int:
        """The lowest height held; above the anchor while nothing is held."""
        return self._base

    @property
    def tip_height(self) -> int:
        return self._base + len(self._raw) // HEADER_LENGTH - 1

    @property
    def tip_hash(self) -> bytes:
        return self._tip_hash

    @property
    def work(self) -> int:
        """Chain work up to the tip; a lower bound if the anchor's is one."""
        return self._work

    @property
    def unproven(self) -> int:
        """How many blocks above the anchor are not proven."""
        return self._proven.count(0)

    def is_proven(self, height: int) -> bool:
        """True if the block at `height`, above the anchor, is proven."""
        return bool(self._proven[height - self.anchor.height - 1])

    def unproven_heights(self) -> list[int]:
        """Where the blocks are that are not proven, ascending."""
        first = self.anchor.height + 1
        return [first + at for at, is_proven in enumerate(self._proven) if not is_proven]

    def mark_proven(self, start: int, count: int) -> None:
        """The proofs of work of `count` blocks from `start` on were checked."""
        at = start - self.anchor.height - 1
        if at < 0 or at + count > len(self._proven):
            raise LocalProtocolError("blocks outside of the header chain were proven")
        self._proven[at : at + count] = b"\1" * count

    def raw(self, start: int, count: int) -> bytes:
        """`count` headers from `start` on, 80 bytes each."""
        at = self._slice(start)
        self._slice(start + count - 1)
        return bytes(self._raw[at : at + count * HEADER_LENGTH])

    def lowest(self) -> int:
        return self._base

    def __contains__(self, height: object) -> bool:
        return isinstance(height, int) and self._base <= height <= self.tip_height

    def _slice(self, height: int) -> int:
        if height not in self:
            raise LocalProtocolError("a height outside of the header chain was asked for")
        return (height - self._base) * HEADER_LENGTH

    def _locate(self, height: int) -> tuple[bytearray, int]:
        return self._raw, self._slice(height)

    def merkle_root(self, height: int) -> bytes:
        at = self._slice(height)
        return bytes(self._raw[at + 36 : at + 68])

    def block_hash(self, height: int) -> bytes:
        at = self._slice(height)
        return double_sha256(bytes(self._raw[at : at + HEADER_LENGTH]))

    def work_above(self, height: int) -> int:
        """The work of the blocks above `height`."""
        return sum(work_of(self.bits(at)) for at in range(height + 1, self.tip_height + 1))

    def extend_down(self, headers: Sequence[Header]) -> None:
        """Put linked headers, lowest first, below what is held.

        The first call must end with the anchor and reach down to `first_height_needed`.
        Raises RemoteProtocolError, and changes nothing, if a link does not hold.
        """
        if not headers:
            return
        base = self._base - len(headers)
        if base < 0:
            raise RemoteProtocolError("headers of negative height")
        if not self.is_anchored and base > first_height_needed(self.network, self.anchor):
            raise LocalProtocolError("the first headers do not reach down far enough")
        expected = self.header(self._base).previous if self.is_anchored else self._tip_hash
        for header in reversed(headers):
            if header.block_hash != expected:
                raise HeaderRejected(0, "a header below the anchor is not the one linked to")
            expected = header.previous
        if base == 0 and headers[0].block_hash != self.network.genesis:
            raise HeaderRejected(0, "the chain does not begin with the network's first block")
        self._raw[:0] = b"".join(header.raw for header in headers)
        self._base = base

    def branch(self, fork_height: int) -> Branch:
        """An empty branch on top of the block at `fork_height`, at or above the anchor."""
        if fork_height < self.anchor.height:
            raise HeaderRejected(0, "a branch forks below the trust anchor")
        return Branch(self, fork_height)

    def adopt(self, branch: Branch) -> int:
        """Make `branch` part of the chain; returns how many blocks it replaced.

        Raises RemoteProtocolError if it has no more work than what it would replace, or
        replaces anything without being proven in full, or is not proven enough.
        """
        if branch.chain is not self or not branch.outweighs:
            raise RemoteProtocolError("a branch without more work does not replace the chain")
        if not branch.is_sound:
            raise RemoteProtocolError("a branch's newest blocks are not proven")
        replaced = self.work_above(branch.fork_height)
        dropped = self.tip_height - branch.fork_height
        del self._raw[self._slice(branch.fork_height) + HEADER_LENGTH :]
        self._raw += branch.raw
        del self._proven[branch.fork_height - self.anchor.height :]
        self._proven += branch.proven
        self._work += branch.work - replaced
        self._tip_hash = branch.tip_hash
        return dropped

    def restore(self, raw: Sequence[bytes], proven: Sequence[int], now: int | None = None) -> int:
        """Take back headers above the anchor that were checked in an earlier run.

        Links, difficulty, times and versions are checked again, the merged-mining proof
        (which is not kept) is not: `proven` says which ones it was checked of.  Stops at the
        first header that does not fit, and at the first that is not proven if the newest
        are not; returns how many were taken.
        """
        branch = self.branch(self.tip_height)
        for item, is_proven in zip(raw, proven, strict=True):
            try:
                branch.append_checked(Header.parse(item), now)
            except RemoteProtocolError:
                break
            branch.proven[-1] = bool(is_proven)
        if not branch.is_sound:
            taken = branch.proven.index(0)
            return self.restore(raw[:taken], proven[:taken], now)
        if branch.raw:
            self.adopt(branch)
        return len(branch.proven)


class Branch(_Context):
    """Valid headers on top of a block of a chain, not yet part of it."""

    def __init__(self, chain: HeaderChain, fork_height: int) -> None:
        self.chain = chain
        self.network = chain.network
        self.fork_height = fork_height
        self.raw = bytearray()
        self.proven = bytearray()
        """For each header 1 if its proof of work was checked."""
        self.work = 0
        self.tip_hash = chain.block_hash(fork_height)

    @property
    def tip_height(self) -> int:
        return self.fork_height + len(self.raw) // HEADER_LENGTH

    @property
    def outweighs(self) -> bool:
        """True if this branch may replace what it would: it has more work, all of it done."""
        if self.fork_height < self.chain.tip_height and 0 in self.proven:
            return False
        return self.work > self.chain.work_above(self.fork_height)

    @property
    def is_sound(self) -> bool:
        """True if its newest headers are proven."""
        return 0 not in self.proven[-FULL_TAIL:]

    def is_proven(self, height: int) -> bool:
        """True if the proof of work of the header at `height` was checked."""
        return bool(self.proven[height - self.fork_height - 1])

    def mark_proven(self, height: int) -> None:
        """The proof of work of the header at `height` was checked."""
        self.proven[height - self.fork_height - 1] = 1

    def works(self) -> list[int]:
        """The claimed work of each header, lowest first."""
        heights = range(self.fork_height + 1, self.tip_height + 1)
        return [work_of(self.bits(height)) for height in heights]

    def lowest(self) -> int:
        return self.chain.lowest()

    def _locate(self, height: int) -> tuple[bytearray, int]:
        if height <= self.fork_height:
            return self.chain._locate(height)
        return self.raw, (height - self.fork_height - 1) * HEADER_LENGTH

    def append(self, mined: MinedHeader, now: int | None = None) -> Cooperative[None]:
        """Check the next header fully and take it.  `now` is in s since 1970.

        Raises HeaderRejected, leaving the branch as it was.  What costs little is checked
        first: the difficulty due makes a proof that goes on for long a dear one.
        """
        self._check_link(mined.header)
        yield from check_proof_of_work(mined, self.tip_height + 1, self.network)
        self._take(mined.header, now)
        self.proven[-1] = 1

    def append_checked(self, header: Header, now: int | None = None) -> None:
        """The same but for the proof of work, which was checked before or will be."""
        self._check_link(header)
        self._take(header, now)

    def _check_link(self, header: Header) -> None:
        if header.previous != self.tip_hash:
            raise HeaderRejected(0, "a header does not link to the one before it")
        height = self.tip_height + 1
        if header.bits != self.required_bits(height, header.time):
            raise HeaderRejected(0, "a header's difficulty is not the one due")

    def _take(self, header: Header, now: int | None) -> None:
        height = self.tip_height + 1
        if header.time <= self.median_time(height - 1):
            raise HeaderRejected(0, "a header is older than the median of those before it")
        if now is not None and header.time > now + MAX_FUTURE_S:
            raise HeaderFromTheFuture
        floor = next((low for since, low in self.network.version_floors if height >= since), 0)
        if header.base_version < floor:
            raise HeaderRejected(0, "a header's version is too old")
        self.raw += header.raw
        self.proven.append(0)
        self.work += work_of(header.bits)
        self.tip_hash = header.block_hash
