from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.namecoin.chain import auxpow
from isoproxy.namecoin.chain.auxpow import (
    MAX_HEADER,
    MERGED_MINING_MARKER,
    Header,
    HeaderRejected,
    MinedHeader,
    bits_of,
    expected_slot,
    series,
    target_of,
)
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, TESTNET, ChainParams
from isoproxy.namecoin.chain.transaction import Truncated, double_sha256
from tests.kit.namecoin.at_once import check_proof_of_work, parse_header
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.compact_size import write_compact_size
from tests.kit.namecoin.mainnet import mainnet_headers
from tests.kit.namecoin.mining import (
    AUXPOW_VERSION,
    BITS,
    PLAIN_VERSION,
    MergeMining,
    header_bytes,
    mine_plain,
)

EASY_MAIN = replace(MAINNET, pow_limit=REGTEST.pow_limit)
EASY_TEST = replace(TESTNET, pow_limit=REGTEST.pow_limit)
NETWORKS = {"main": EASY_MAIN, "testnet": EASY_TEST, "regtest": REGTEST}
HEIGHT = 30000
SIBLINGS = [bytes([i]) * 32 for i in range(1, 5)]
TYPICAL = MergeMining(branch=SIBLINGS[:3], coinbase_branch=SIBLINGS, outputs=3)


def header(version: int = AUXPOW_VERSION, bits: int = BITS) -> bytes:
    return header_bytes(version, b"\x01" * 32, b"\x02" * 32, 1_700_000_000, bits)


def rule_broken(
    mining: MergeMining,
    network: ChainParams = REGTEST,
    height: int = HEIGHT,
    raw: bytes | None = None,
) -> int:
    with pytest.raises(HeaderRejected) as refused:
        check_proof_of_work(parse_header(mining.mine(raw or header())), height, network)
    return refused.value.rule


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(
    "mining",
    [
        MergeMining(),
        TYPICAL,
        MergeMining(marker=b""),
        MergeMining(marker=b"", before=bytes(20)),
        MergeMining(before=b"x" * 60),
        MergeMining(outputs=0),
        MergeMining(witness=True, coinbase_branch=SIBLINGS),
        MergeMining(branch=SIBLINGS, nonce=0xFFFFFFFF),
        replace(MergeMining(branch=SIBLINGS[:1]), after=None),
    ],
)
def test_a_well_mined_header_passes(mining: MergeMining, network: ChainParams) -> None:
    check_proof_of_work(parse_header(mining.mine(header())), HEIGHT, network)


def test_the_chain_that_namecoin_core_mined_passes() -> None:
    for height, raw in enumerate(RegtestChain.recorded().headers()):
        if height:
            check_proof_of_work(parse_header(raw), height, REGTEST)


@pytest.mark.parametrize("height", [19200, 19204])
def test_headers_of_the_main_chain_pass(height: int) -> None:
    block_hash, raw = mainnet_headers()[height]
    mined = parse_header(raw)
    assert mined.header.block_hash[::-1].hex() == block_hash
    assert (mined.auxpow is not None) == (height == 19200)
    check_proof_of_work(mined, height, MAINNET)


def test_every_byte_of_the_main_chains_first_merge_mined_header_is_held_against_the_rules() -> None:
    _, raw = mainnet_headers()[19200]
    mined = parse_header(raw)
    assert mined.auxpow is not None
    parent_hash = raw.index(double_sha256(raw[-80:]))
    passed = []
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            check_proof_of_work(parse_header(changed), 19200, MAINNET)
        except RemoteProtocolError:
            continue
        passed.append(at)
    assert passed == list(range(parent_hash, parent_hash + 32))  # repeated there, read by nobody


def test_rule_1_a_legacy_header_only_where_the_network_allows_it() -> None:
    mined = parse_header(mine_plain(header(1)))
    check_proof_of_work(mined, 19199, EASY_MAIN)
    check_proof_of_work(mined, 10**6, EASY_TEST)
    for network, height in ((EASY_MAIN, 19200), (REGTEST, 0), (REGTEST, 5)):
        with pytest.raises(HeaderRejected) as refused:
            check_proof_of_work(mined, height, network)
        assert refused.value.rule == 1


def test_rule_2_the_chain_id_is_ours_except_on_the_test_network() -> None:
    foreign = header(0x00020104)
    assert rule_broken(MergeMining(), EASY_MAIN, raw=foreign) == 2
    assert rule_broken(MergeMining(), REGTEST, raw=foreign) == 2
    check_proof_of_work(parse_header(MergeMining().mine(foreign)), HEIGHT, EASY_TEST)


def test_rule_3_flag_and_proof_go_together() -> None:
    with_proof = parse_header(MergeMining().mine(header()))
    for mined in (
        MinedHeader(with_proof.header, None),
        MinedHeader(Header.parse(header(PLAIN_VERSION)), with_proof.auxpow),
    ):
        with pytest.raises(HeaderRejected) as refused:
            check_proof_of_work(mined, HEIGHT, REGTEST)
        assert refused.value.rule == 3


def test_rule_3_no_merged_mining_before_it_began() -> None:
    assert rule_broken(MergeMining(), EASY_MAIN, 19199) == 3
    check_proof_of_work(parse_header(MergeMining().mine(header())), 19200, EASY_MAIN)
    check_proof_of_work(parse_header(MergeMining().mine(header())), 1, EASY_TEST)


def test_rule_4_without_a_parent_the_own_hash_counts() -> None:
    check_proof_of_work(parse_header(mine_plain(header(PLAIN_VERSION))), 19204, EASY_MAIN)
    with pytest.raises(HeaderRejected) as refused:
        check_proof_of_work(
            parse_header(mine_plain(header(PLAIN_VERSION), enough=False)), 19204, EASY_MAIN
        )
    assert refused.value.rule == 4


def test_rule_5_the_parent_is_not_merge_mined_itself() -> None:
    assert rule_broken(MergeMining(parent_version=0x20000100)) == 5


def test_rule_6_the_parents_work_meets_our_target() -> None:
    assert rule_broken(MergeMining(enough=False)) == 6


def test_rule_6_no_target_is_easier_than_the_network_allows() -> None:
    assert rule_broken(MergeMining(), MAINNET) == 6
    assert rule_broken(MergeMining(), replace(REGTEST, pow_limit=1)) == 6


def test_rule_7_only_a_coinbase_commits() -> None:
    assert rule_broken(MergeMining(coinbase_index=1)) == 7


def test_rule_8_the_parent_is_another_chain_except_on_the_test_network() -> None:
    own = MergeMining(parent_version=PLAIN_VERSION)
    assert rule_broken(own, EASY_MAIN) == 8
    assert rule_broken(own, REGTEST) == 8
    check_proof_of_work(parse_header(own.mine(header())), HEIGHT, EASY_TEST)


def test_rule_9_the_merged_mining_tree_has_at_most_30_levels() -> None:
    long = MergeMining(branch=[bytes(32)] * 31, slot=0, tree_size=1)
    assert rule_broken(long) == 9


def test_rule_10_the_coinbase_is_in_the_parent_block() -> None:
    assert rule_broken(replace(TYPICAL, parent_root=b"\x09" * 32)) == 10


def test_rule_11_the_coinbase_commits_to_the_block() -> None:
    assert rule_broken(MergeMining(commit=False)) == 11
    assert rule_broken(MergeMining(inputs=False, outputs=0)) == 11


@pytest.mark.parametrize(
    "mining",
    [
        MergeMining(before=MERGED_MINING_MARKER),
        MergeMining(marker=MERGED_MINING_MARKER + b"\x00"),
        MergeMining(marker=b"", before=bytes(21)),
        MergeMining(after=bytes(8) + MERGED_MINING_MARKER),
    ],
    ids=["two markers", "gap", "late without marker", "second marker behind"],
)
def test_rule_12_one_marker_and_the_commitment_right_behind_it(mining: MergeMining) -> None:
    assert rule_broken(mining) == 12


@pytest.mark.parametrize("mining", [MergeMining(after=bytes(7)), MergeMining(tree_size=2)])
def test_rule_13_size_and_nonce_follow(mining: MergeMining) -> None:
    assert rule_broken(mining) == 13


def test_rule_14_the_slot_is_the_one_the_nonce_gives() -> None:
    right = expected_slot(TYPICAL.nonce, 3)
    assert rule_broken(replace(TYPICAL, slot=right ^ 1)) == 14
    assert rule_broken(MergeMining(slot=1)) == 14


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_slots_are_the_same_in_32_bit_arithmetic(nonce: int, height: int) -> None:
    slot = (nonce * 1103515245 + 12345) % 2**32
    slot = ((slot + 1) * 1103515245 + 12345) % 2**32
    assert expected_slot(nonce, height) == slot % 2**height


@pytest.mark.parametrize(
    ("bits", "target"),
    [
        (0x1D00FFFF, 0xFFFF << 208),
        (0x207FFFFF, 0x7FFFFF << 232),
        (0x1712DB39, 0x12DB39 << 160),
        (0x01120000, 0x12),
        (0x00000000, 0),
        (0x04800001, 0),
        (0xFF123456, 0),
        (0x20FFFFFF, 0),
    ],
)
def test_compact_targets(bits: int, target: int) -> None:
    assert target_of(bits) == target


@given(st.integers(1, 2**256 - 1))
def test_compact_targets_round_down(target: int) -> None:
    rounded = target_of(bits_of(target))
    assert rounded <= target < rounded + (1 << max(0, target.bit_length() - 15))
    assert bits_of(rounded) == bits_of(target)


RECORDED = RegtestChain.recorded().headers()


def headers_of(blob: bytes) -> list[MinedHeader]:
    return [mined for mined in series(blob) if mined is not None]


def test_a_series_gives_its_headers_and_other_work_a_turn_between_them() -> None:
    blob = b"".join(RECORDED)
    assert [mined.header.raw for mined in headers_of(blob)] == [raw[:80] for raw in RECORDED]
    turns = sum(mined is None for mined in series(blob * 10))
    assert turns >= len(blob * 10) // 40_000


def test_a_series_that_ends_inside_a_header_is_refused() -> None:
    blob = TYPICAL.mine(header())
    with pytest.raises(RemoteProtocolError, match="middle"):
        headers_of(blob * 2 + blob[:-1])


def test_a_header_that_claims_to_be_huge_is_refused_at_once() -> None:
    huge = header() + b"\x01\0\0\0\x01" + bytes(36) + b"\xfe" + (1 << 24).to_bytes(4, "little")
    with pytest.raises(RemoteProtocolError):
        headers_of(huge)
    with pytest.raises(LimitExceeded):
        headers_of(padded(witness=MAX_HEADER))
    with pytest.raises(LimitExceeded):
        headers_of(padded(branch=40_000))


def padded(*, outputs: int = 1, witness: int = 1, branch: int = 0) -> bytes:
    """A header whose proof has that many outputs, items of witness, levels of its coinbase."""
    parts = [
        header(),
        b"\1\0\0\0" + b"\0\1" + b"\1" + bytes(41),
        write_compact_size(outputs) + bytes(9) * outputs,
        write_compact_size(witness) + bytes(witness),
        bytes(4) + bytes(32),
        write_compact_size(branch) + bytes(32) * branch + bytes(4),
        bytes(5) + bytes(80),
    ]
    return b"".join(parts)


WORK: Final = 12_000
"""Items of a proof that may be looked at before other work has its turn."""


@pytest.mark.parametrize(
    ("blob", "items"),
    [
        (padded(witness=600_000), 600_000),
        (padded(outputs=40_000), 40_000),
    ],
    ids=["witness", "outputs"],
)
def test_other_work_has_its_turn_while_a_proof_is_read(blob: bytes, items: int) -> None:
    """The witness is covered by no hash: whoever sends a true header can add to it."""
    tracemalloc.start()
    turns = sum(mined is None for mined in series(blob))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert turns >= items // WORK - 1
    assert peak < 40 * len(blob)


def test_other_work_has_its_turn_while_a_proof_is_checked() -> None:
    long = MergeMining(coinbase_branch=[bytes(32)] * 30_000)
    mined = parse_header(long.mine(header()))
    assert sum(1 for _ in auxpow.check_proof_of_work(mined, HEIGHT, REGTEST)) >= 30_000 // WORK
    lazy = MergeMining(coinbase_branch=[bytes(32)] * 30_000, enough=False)
    steps = auxpow.check_proof_of_work(parse_header(lazy.mine(header())), HEIGHT, REGTEST)
    with pytest.raises(HeaderRejected):  # before any of it
        next(steps)


def test_a_proof_may_be_as_long_as_a_block_but_its_coinbase_without_witness_no_longer() -> None:
    """One header that no client reads would end the chain for all of them."""
    assert len(headers_of(padded(witness=3_900_000))) == 1
    with pytest.raises(LimitExceeded):
        headers_of(padded(outputs=120_000))


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_flagged_header_are_a_proof_or_a_clear_error(tail: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_header(header() + tail)


def test_cut_off_anywhere_it_asks_for_more() -> None:
    raw = TYPICAL.mine(header())
    for length in range(len(raw)):
        with pytest.raises(Truncated) as short:
            parse_header(raw[:length])
        assert length < short.value.need <= len(raw)


def test_a_header_has_80_bytes() -> None:
    with pytest.raises(RemoteProtocolError, match="80"):
        Header.parse(bytes(79))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:40] + b"\xff" + raw[41:],
        lambda raw: raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:],
        lambda raw: raw[:130] + bytes([raw[130] ^ 1]) + raw[131:],
    ],
)
def test_a_flipped_byte_is_noticed(change: Callable[[bytes], bytes]) -> None:
    for raw in RECORDED[1:6]:
        with pytest.raises(RemoteProtocolError):
            check_proof_of_work(parse_header(change(raw)), HEIGHT, REGTEST)
