from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from isoproxy.errors import LocalProtocolError, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import Header, HeaderRejected, MinedHeader, bits_of
from isoproxy.namecoin.chain.header_chain import Branch, HeaderChain, first_height_needed, work_of
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, TESTNET, Anchor, ChainParams
from isoproxy.namecoin.chain.sampling import FULL_TAIL
from tests.kit.namecoin.at_once import append, parse_header
from tests.kit.namecoin.chain import RECORDED_TIP, RegtestChain
from tests.kit.namecoin.mining import (
    AUXPOW_VERSION,
    BITS,
    PLAIN_VERSION,
    MergeMining,
    header_bytes,
    mine_plain,
)

RECORDED = [parse_header(raw) for raw in RegtestChain.recorded().headers()]
START = 1_700_000_000
STEP = 600


def regtest(anchor: int = 0) -> HeaderChain:
    """The recorded chain up to its anchor."""
    header = RECORDED[anchor].header
    chain = HeaderChain(REGTEST, Anchor(anchor, header.block_hash))
    lowest = first_height_needed(REGTEST, chain.anchor)
    chain.extend_down([mined.header for mined in RECORDED[lowest : anchor + 1]])
    return chain


def grow(chain: HeaderChain, headers: Sequence[MinedHeader]) -> Branch:
    branch = chain.branch(chain.tip_height)
    for mined in headers:
        append(branch, mined)
    chain.adopt(branch)
    return branch


def mine_on(previous: bytes, times: Sequence[int]) -> list[MinedHeader]:
    """Headers on top of the block `previous`, dated `times`."""
    mined = []
    for at in times:
        raw = header_bytes(AUXPOW_VERSION, previous, struct.pack("<Q32x", at)[:32], at)
        mined.append(parse_header(MergeMining().mine(raw)))
        previous = mined[-1].header.block_hash
    return mined


def test_the_recorded_chain_grows_from_its_first_block() -> None:
    chain = regtest()
    grow(chain, RECORDED[1:])
    assert chain.tip_height == RECORDED_TIP
    assert chain.tip_hash == RECORDED[-1].header.block_hash
    assert chain.work == RECORDED_TIP * work_of(BITS)
    for height in (0, 1, RECORDED_TIP):
        assert chain.block_hash(height) == RECORDED[height].header.block_hash
        assert chain.merkle_root(height) == RECORDED[height].header.merkle_root
    assert RECORDED_TIP + 1 not in chain


def test_it_grows_down_by_links_alone() -> None:
    chain = regtest(anchor=100)
    assert chain.base_height == 90
    chain.extend_down([mined.header for mined in RECORDED[60:90]])
    assert chain.base_height == 60
    assert chain.block_hash(60) == RECORDED[60].header.block_hash
    chain = HeaderChain(REGTEST, Anchor(100, RECORDED[100].header.block_hash))
    assert not chain.is_anchored
    assert 100 not in chain
    with pytest.raises(LocalProtocolError):
        chain.header(100)


def test_a_header_below_that_is_not_linked_to_changes_nothing() -> None:
    chain = HeaderChain(REGTEST, Anchor(50, RECORDED[50].header.block_hash))
    headers = [mined.header for mined in RECORDED[:51]]
    forged = Header.parse(header_bytes(4, b"\1" * 32, b"\2" * 32, START))
    with pytest.raises(HeaderRejected):
        chain.extend_down([*headers[:20], forged, *headers[21:]])
    assert chain.base_height == 51
    with pytest.raises(HeaderRejected):
        chain.extend_down([*headers[:-1], forged])
    chain.extend_down([])
    chain.extend_down(headers)
    assert chain.base_height == 0
    with pytest.raises(RemoteProtocolError, match="negative"):
        chain.extend_down([forged])


def test_another_first_block_is_refused() -> None:
    other = replace(REGTEST, genesis=bytes(32))
    chain = HeaderChain(other, Anchor(3, RECORDED[3].header.block_hash))
    with pytest.raises(HeaderRejected, match="first block"):
        chain.extend_down([mined.header for mined in RECORDED[:4]])


@pytest.mark.parametrize(
    ("height", "needed"), [(0, 0), (5, 0), (815000, 814463), (814464, 814454), (4031, 2015)]
)
def test_what_is_needed_below_an_anchor(height: int, needed: int) -> None:
    assert first_height_needed(MAINNET, Anchor(height, bytes(32))) == needed


def test_the_first_headers_must_reach_down_far_enough() -> None:
    chain = HeaderChain(REGTEST, Anchor(50, RECORDED[50].header.block_hash))
    with pytest.raises(LocalProtocolError):
        chain.extend_down([mined.header for mined in RECORDED[41:51]])


def test_a_longer_branch_replaces_the_chain_and_an_equal_one_does_not() -> None:
    chain = regtest()
    grow(chain, RECORDED[1:])
    fork = RECORDED_TIP - 3
    at = chain.time(fork)
    rivals = mine_on(chain.block_hash(fork), [at + STEP * i for i in range(1, 5)])
    branch = chain.branch(fork)
    for mined in rivals[:3]:
        append(branch, mined)
    assert not branch.outweighs
    with pytest.raises(RemoteProtocolError, match="more work"):
        chain.adopt(branch)
    assert chain.tip_hash == RECORDED[-1].header.block_hash
    append(branch, rivals[3])
    assert chain.adopt(branch) == 3
    assert chain.tip_height == RECORDED_TIP + 1
    assert chain.tip_hash == rivals[3].header.block_hash
    assert chain.work == (RECORDED_TIP + 1) * work_of(BITS)


def test_a_branch_of_another_chain_is_not_adopted() -> None:
    chain, other = regtest(), regtest()
    branch = other.branch(0)
    append(branch, RECORDED[1])
    with pytest.raises(RemoteProtocolError):
        chain.adopt(branch)


def test_no_branch_forks_below_the_anchor() -> None:
    chain = regtest(anchor=20)
    with pytest.raises(HeaderRejected, match="anchor"):
        chain.branch(19)


def test_a_header_that_does_not_link_is_refused() -> None:
    branch = regtest().branch(0)
    with pytest.raises(HeaderRejected, match="link"):
        append(branch, RECORDED[2])
    with pytest.raises(HeaderRejected, match="link"):
        branch.append_checked(RECORDED[2].header)


def test_a_header_with_too_little_work_is_refused() -> None:
    branch = regtest().branch(0)
    raw = header_bytes(AUXPOW_VERSION, branch.tip_hash, bytes(32), START)
    with pytest.raises(HeaderRejected) as refused:
        append(branch, parse_header(MergeMining(enough=False).mine(raw)))
    assert refused.value.rule == 6
    assert branch.tip_height == 0


def test_a_header_of_another_difficulty_is_refused() -> None:
    branch = regtest().branch(0)
    raw = header_bytes(AUXPOW_VERSION, branch.tip_hash, bytes(32), START, 0x1F7FFFFF)
    with pytest.raises(HeaderRejected, match="difficulty"):
        append(branch, parse_header(MergeMining().mine(raw)))


def test_a_difficulty_of_ones_own_is_refused_before_a_long_proof_is_looked_at() -> None:
    branch = regtest().branch(0)
    long = MergeMining(coinbase_branch=[bytes(32)] * 5000)
    raw = header_bytes(AUXPOW_VERSION, branch.tip_hash, bytes(32), START, 0x1F7FFFFF)
    with pytest.raises(HeaderRejected, match="difficulty"):
        next(branch.append(parse_header(long.mine(raw))))


def test_median_time_and_the_future() -> None:
    chain = regtest()
    grow(chain, RECORDED[1:])
    median = chain.median_time(RECORDED_TIP)
    times = sorted(mined.header.time for mined in RECORDED[-11:])
    assert median == times[5]
    branch = chain.branch(RECORDED_TIP)
    (late,) = mine_on(chain.tip_hash, [median])
    with pytest.raises(HeaderRejected, match="median"):
        append(branch, late)
    (early,) = mine_on(chain.tip_hash, [median + 1])
    with pytest.raises(HeaderRejected, match="future"):
        append(branch, early, now=median + 1 - 7201)
    append(branch, early, now=median + 1 - 7200)


def test_restored_headers_are_checked_again_up_to_the_first_that_does_not_fit() -> None:
    chain = regtest()
    raws = [mined.header.raw for mined in RECORDED[1:]]
    raws[30] = raws[31]
    assert chain.restore(raws, [1] * len(raws)) == 30
    assert chain.tip_height == 30
    assert chain.restore([], []) == 0
    assert chain.restore([b"short"], [1]) == 0


# -- blocks whose proof of work was not checked ----------------------------------------


def sampled(chain: HeaderChain, unproven: int, proven: int) -> Branch:
    """A branch of the recorded blocks, the newest `proven` of it checked in full."""
    branch = chain.branch(chain.tip_height)
    first = chain.tip_height + 1
    for mined in RECORDED[first : first + unproven]:
        branch.append_checked(mined.header)
    for mined in RECORDED[first + unproven : first + unproven + proven]:
        append(branch, mined)
    return branch


def test_a_branch_on_top_may_have_unproven_blocks_below_its_newest() -> None:
    chain = regtest()
    assert not sampled(chain, 3, FULL_TAIL - 1).is_sound
    with pytest.raises(RemoteProtocolError, match="newest"):
        chain.adopt(sampled(chain, 3, FULL_TAIL - 1))
    branch = sampled(chain, 3, FULL_TAIL)
    branch.mark_proven(2)
    chain.adopt(branch)
    assert (chain.unproven, chain.unproven_heights()) == (2, [1, 3])
    assert [chain.is_proven(height) for height in (1, 2, 3, 4)] == [False, True, False, True]
    chain.mark_proven(1, 3)
    assert chain.unproven == 0
    for start, count in ((0, 1), (FULL_TAIL, 10)):
        with pytest.raises(LocalProtocolError):
            chain.mark_proven(start, count)


def test_what_replaces_a_block_is_proven_in_full() -> None:
    """However much more work a branch claims; a proven one replaces also what is not."""
    chain = regtest()
    chain.adopt(sampled(chain, 10, FULL_TAIL))
    for fork in (5, chain.tip_height - 1):
        at = chain.time(fork)
        count = chain.tip_height - fork + 1
        rivals = mine_on(chain.block_hash(fork), [at + STEP * i for i in range(1, count + 1)])
        branch = chain.branch(fork)
        branch.append_checked(rivals[0].header)
        for mined in rivals[1:]:
            append(branch, mined)
        assert branch.work > chain.work_above(fork)
        assert not branch.outweighs
        with pytest.raises(RemoteProtocolError, match="more work"):
            chain.adopt(branch)
        branch.mark_proven(fork + 1)
        assert chain.adopt(branch) == count - 1
    assert chain.unproven_heights() == [1, 2, 3, 4, 5]
    assert chain.raw(1, 3) == b"".join(mined.header.raw for mined in RECORDED[1:4])


def test_what_is_restored_ends_where_all_is_proven_if_the_newest_are_not() -> None:
    raws = [mined.header.raw for mined in RECORDED[1:]]
    proven = [1, 1, 0, 1] + [1] * (len(raws) - 4)
    chain = regtest()
    assert chain.restore(raws, proven) == len(raws)
    assert chain.unproven_heights() == [3]
    chain = regtest()
    assert chain.restore(raws, [*proven[:-1], 0]) == 2
    assert (chain.tip_height, chain.unproven) == (2, 0)


# -- difficulty ------------------------------------------------------------------

EASIEST = (1 << 255) - 1
MAIN_LIKE = replace(MAINNET, pow_limit=EASIEST)


def synthetic(network: ChainParams, count: int, first: int, spacing: int, bits: int) -> HeaderChain:
    """A chain of `count` linked headers from height `first` on, taken on trust."""
    previous, headers = bytes(32), []
    for at in range(count):
        raw = header_bytes(PLAIN_VERSION, previous, bytes(32), START + at * spacing, bits)
        headers.append(Header.parse(raw))
        previous = headers[-1].block_hash
    chain = HeaderChain(
        replace(network, genesis=headers[0].block_hash),
        Anchor(first + count - 1, headers[-1].block_hash),
    )
    chain.extend_down(headers)
    return chain


def test_the_first_window_counts_2015_intervals() -> None:
    bits = bits_of(1 << 220)
    chain = synthetic(MAIN_LIKE, 2016, 0, 300, bits)
    expected = bits_of((1 << 220) * (2015 * 300) // (14 * 86400))
    assert chain.required_bits(2016, 0) == expected


def test_since_merged_mining_a_window_counts_2016_intervals() -> None:
    bits = bits_of(1 << 220)
    chain = synthetic(MAIN_LIKE, 2017, 20159 - 2016, 300, bits)
    expected = bits_of((1 << 220) * (2016 * 300) // (14 * 86400))
    assert chain.required_bits(20160, 0) == expected


@pytest.mark.parametrize(("spacing", "factor"), [(1, 1 / 4), (100_000, 4)])
def test_difficulty_changes_by_a_factor_of_four_at_most(spacing: int, factor: float) -> None:
    bits = bits_of(1 << 220)
    chain = synthetic(MAIN_LIKE, 2017, 40319 - 2016, spacing, bits)
    assert chain.required_bits(40320, 0) == bits_of(int((1 << 220) * factor))


def test_difficulty_never_falls_below_the_limit_and_stays_within_a_window() -> None:
    bits = bits_of(EASIEST)
    chain = synthetic(MAIN_LIKE, 2017, 40319 - 2016, 2000, bits)
    assert chain.required_bits(40320, 0) == bits
    other = synthetic(MAIN_LIKE, 2020, 40322 - 2019, 300, 0x1D00FFFF)
    assert other.required_bits(40323, 0) == 0x1D00FFFF


def test_the_test_networks_late_blocks_may_be_easy() -> None:
    network = replace(TESTNET, pow_limit=EASIEST)
    least, hard = bits_of(EASIEST), bits_of(1 << 220)
    chain = synthetic(network, 2020, 40320 - 2016, 600, hard)
    height = chain.tip_height + 1
    last = chain.time(chain.tip_height)
    assert chain.required_bits(height, last + 1200) == hard
    assert chain.required_bits(height, last + 1201) == least
    assert chain.required_bits(height, last - 1) == least
    branch = chain.branch(chain.tip_height)
    easy = header_bytes(PLAIN_VERSION, branch.tip_hash, bytes(32), last + 1201, least)
    append(branch, parse_header(mine_plain(easy)))
    assert branch.required_bits(height + 1, last + 1300) == hard


def test_old_versions_end() -> None:
    network = replace(MAIN_LIKE, version_floors=((40321, 4), (40320, 3)))
    bits = bits_of(EASIEST)
    chain = synthetic(network, 2017, 40319 - 2016, 2000, bits)

    def following(branch: Branch, version: int) -> MinedHeader:
        at = branch.time(branch.tip_height) + STEP
        raw = header_bytes(version, branch.tip_hash, bytes(32), at, bits)
        return parse_header(mine_plain(raw))

    branch = chain.branch(chain.tip_height)
    with pytest.raises(HeaderRejected, match="version"):
        append(branch, following(branch, 0x00010002))
    append(branch, following(branch, 0x00010003))
    with pytest.raises(HeaderRejected, match="version"):
        append(branch, following(branch, 0x00010003))
    append(branch, following(branch, 0x00010004))
    assert branch.tip_height == 40321
