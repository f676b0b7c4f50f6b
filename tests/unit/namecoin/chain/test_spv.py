from __future__ import annotations

from dataclasses import replace

import pytest

from isoproxy.errors import ErrorKind, RemoteProtocolError
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.name_script import NameOp, NameUpdate
from isoproxy.namecoin.chain.params import REGTEST, Anchor, Checkpoint
from isoproxy.namecoin.chain.spv import (
    CheckpointProof,
    HeaderMissing,
    NameProof,
    NotInBlock,
    Operation,
    ProofVerdict,
    combine,
    expires_in,
    judge,
)
from isoproxy.namecoin.chain.transaction import double_sha256
from tests.kit.namecoin.at_once import append, parse_header, verify
from tests.kit.namecoin.chain import (
    RECORDED_TIP,
    RegtestChain,
    merkle_branch,
    merkle_tree,
    recorded_answers,
)

RECORDED = RegtestChain.recorded()
HEADERS = [parse_header(raw) for raw in RECORDED.headers()]
ANSWERS = recorded_answers()


def header_chain(tip: int = RECORDED_TIP) -> HeaderChain:
    chain = HeaderChain(REGTEST)
    chain.extend_down([HEADERS[0].header])
    branch = chain.branch(0)
    for mined in HEADERS[1 : tip + 1]:
        append(branch, mined)
    chain.adopt(branch)
    return chain


CHAIN = header_chain()


def proof_of(name: str) -> NameProof:
    said = ANSWERS[name]
    height, txid = int(str(said["height"])), str(said["txid"])
    ids = [bytes.fromhex(item)[::-1] for item in RECORDED.blocks[height].transactions]
    position = list(RECORDED.blocks[height].transactions).index(txid)
    branch = tuple(merkle_branch(ids, position))
    return NameProof(height, RECORDED.transactions[txid], branch, position)


@pytest.mark.parametrize("name", [name for name, said in ANSWERS.items() if "txid" in said])
def test_every_recorded_name_is_proven(name: str) -> None:
    said = ANSWERS[name]
    operation = verify(CHAIN, name.encode(), proof_of(name))
    assert operation.update.value == str(said["value"]).encode()
    assert operation.update.txid[::-1].hex() == said["txid"]
    assert expires_in(operation.height, CHAIN) == said["expires_in"]


GOOD = proof_of("d/plain4")


@pytest.mark.parametrize(
    "proof",
    [
        replace(GOOD, branch=GOOD.branch[:-1]),
        replace(GOOD, branch=(bytes(32), *GOOD.branch[1:])),
        replace(GOOD, position=GOOD.position ^ 1),
        replace(GOOD, position=GOOD.position + (1 << len(GOOD.branch))),
        replace(GOOD, height=GOOD.height - 1),
        replace(GOOD, transaction=proof_of("d/plain6").transaction),
        replace(GOOD, transaction=GOOD.transaction[:-1] + b"\x01"),
    ],
    ids=["short", "forged", "sibling", "outside", "height", "other name", "altered"],
)
def test_a_false_proof_is_refused(proof: NameProof) -> None:
    with pytest.raises(RemoteProtocolError):
        verify(CHAIN, b"d/plain4", proof)


def test_a_branch_to_another_root_is_told_apart() -> None:
    with pytest.raises(NotInBlock):
        verify(CHAIN, b"d/plain4", replace(GOOD, height=GOOD.height - 1))


@pytest.mark.parametrize("height", [RECORDED_TIP + 1, 10**6])
def test_a_block_that_we_do_not_have_proves_nothing(height: int) -> None:
    with pytest.raises(HeaderMissing) as missing:
        verify(CHAIN, b"d/plain4", replace(GOOD, height=height))
    assert missing.value.height == height


def anchored_above() -> HeaderChain:
    """A chain that begins above the block of `OLD_PROOF`."""
    anchor = 165
    chain = HeaderChain(REGTEST, Anchor(anchor, CHAIN.block_hash(anchor)))
    chain.extend_down([mined.header for mined in HEADERS[anchor - 10 : anchor + 1]])
    return chain


OLD_NAME, OLD_PROOF = b"d/expired", proof_of("d/expired")
LEAVES = [mined.header.block_hash for mined in HEADERS[:150]]
CHECKPOINT = Checkpoint(149, merkle_tree(LEAVES)[-1][0])
BELOW = CheckpointProof(
    HEADERS[OLD_PROOF.height].header.raw, tuple(merkle_branch(LEAVES, OLD_PROOF.height))
)


def test_a_checkpoint_proves_a_header_below_the_chain() -> None:
    chain = anchored_above()
    with pytest.raises(HeaderMissing):
        verify(chain, OLD_NAME, OLD_PROOF.below(BELOW))
    with pytest.raises(HeaderMissing):
        verify(chain, OLD_NAME, OLD_PROOF, CHECKPOINT)
    assert verify(chain, OLD_NAME, OLD_PROOF.below(BELOW), CHECKPOINT).height == 133


@pytest.mark.parametrize(
    "below",
    [
        replace(BELOW, header=HEADERS[OLD_PROOF.height - 1].header.raw),
        replace(BELOW, branch=BELOW.branch[:-1]),
        replace(BELOW, branch=(bytes(32), *BELOW.branch[1:])),
    ],
)
def test_a_false_checkpoint_proof_is_refused(below: CheckpointProof) -> None:
    with pytest.raises(RemoteProtocolError):
        verify(anchored_above(), OLD_NAME, OLD_PROOF.below(below), CHECKPOINT)


# -- judging -----------------------------------------------------------------------


def operation(height: int, position: int = 1, value: bytes = b"v") -> Operation:
    txid = double_sha256(b"%d %d" % (height, position))
    return Operation(height, position, NameUpdate(txid, 0, NameOp.UPDATE, value, ()))


TIP = RECORDED_TIP


@pytest.mark.parametrize(
    ("heights", "answer"),
    [
        ([], ErrorKind.NAME_ABSENT),
        ([TIP - 11], TIP - 11),
        ([TIP - 10], ErrorKind.NAME_UNCONFIRMED),
        ([TIP - 29], TIP - 29),
        ([TIP - 30], ErrorKind.NAME_EXPIRED),
        ([TIP - 40], ErrorKind.NAME_EXPIRED),
        ([TIP - 3, TIP - 20], TIP - 20),
        ([TIP, TIP - 1, TIP - 2, TIP - 11, TIP - 20], TIP - 11),
        ([TIP - 3, TIP - 30], ErrorKind.NAME_UNCONFIRMED),
        ([TIP - 3, TIP - 29], TIP - 29),
        ([TIP - 20, TIP - 60], TIP - 20),
    ],
)
def test_the_survivor_rule(heights: list[int], answer: int | ErrorKind) -> None:
    for order in (heights, heights[::-1]):
        verdict = judge([operation(height) for height in order], CHAIN, 12)
        if isinstance(answer, int):
            assert verdict.operation is not None
            assert verdict.operation.height == answer
        else:
            assert verdict == ProofVerdict(None, answer)


def test_expiry_is_namecoin_cores() -> None:
    assert expires_in(133, CHAIN) == -5
    assert expires_in(TIP - 29, CHAIN) == 1
    assert expires_in(TIP - 30, CHAIN) == 0


def test_within_a_block_the_later_position_wins() -> None:
    first, second = operation(TIP - 15, 1), operation(TIP - 15, 2)
    for told in ([first, second], [second, first]):
        assert judge(told, CHAIN, 12).operation == second
        assert combine([ProofVerdict(one) for one in told]).operation == second


ABSENT, EXPIRED, YOUNG = (
    ProofVerdict(None, kind)
    for kind in (ErrorKind.NAME_ABSENT, ErrorKind.NAME_EXPIRED, ErrorKind.NAME_UNCONFIRMED)
)
OLD, NEW = ProofVerdict(operation(TIP - 25)), ProofVerdict(operation(TIP - 15))


@pytest.mark.parametrize(
    ("verdicts", "result"),
    [
        ([OLD, NEW], NEW),
        ([NEW, OLD], NEW),
        ([ABSENT, OLD], OLD),
        ([ABSENT, ABSENT], ABSENT),
        ([ABSENT, EXPIRED], EXPIRED),
        ([EXPIRED, YOUNG], YOUNG),
        ([YOUNG, OLD], OLD),
    ],
)
def test_the_newest_of_several_answers_wins(
    verdicts: list[ProofVerdict], result: ProofVerdict
) -> None:
    assert combine(verdicts) == result


def test_expiry_replaces_only_absence() -> None:
    assert ABSENT.or_expired() == EXPIRED
    assert YOUNG.or_expired() == YOUNG
    assert OLD.or_expired() == OLD
