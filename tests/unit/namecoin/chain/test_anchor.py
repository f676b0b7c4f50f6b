from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.namecoin.chain.anchor import anchor_from_core, best_anchor, read_anchor, write_anchor
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, Anchor
from isoproxy.namecoin.value.json import Json
from tests.kit.namecoin.chain import RegtestChain
from tests.kit.namecoin.daemon import answer

CHAIN = RegtestChain.recorded()
NEWER = Anchor(900_000, b"\x07" * 32, 5 << 100)


async def core(method: str, params: list[Json]) -> Json:
    result: Json = answer(CHAIN, method, params)
    return result


async def test_a_block_deep_below_the_tip_of_ones_own_node() -> None:
    anchor = await anchor_from_core(core, REGTEST, depth=18)
    assert anchor.height == 150
    assert anchor.block_hash[::-1].hex() == CHAIN.blocks[150].block_hash
    assert anchor.work == 2 * (CHAIN.tip + 1)


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("getblockchaininfo", {"chain": "main", "blocks": 10**6}),
        ("getblockchaininfo", {"chain": "regtest", "blocks": 168, "initialblockdownload": True}),
        ("getblockchaininfo", {"chain": "regtest", "blocks": 5}),
        ("getblockchaininfo", "nonsense"),
        ("getblockheader", {"hash": "00" * 32, "chainwork": "1"}),
        ("getblockheader", {}),
        ("getblockhash", "zz"),
    ],
)
async def test_a_node_that_cannot_vouch_gives_no_anchor(method: str, reply: Json) -> None:
    async def call(asked: str, params: list[Json]) -> Json:
        return reply if asked == method else await core(asked, params)

    with pytest.raises(OperationError):
        await anchor_from_core(call, REGTEST, depth=18)


def test_an_anchor_is_kept(tmp_path: Path) -> None:
    assert read_anchor(tmp_path, MAINNET) is None
    assert best_anchor(MAINNET, tmp_path) == best_anchor(MAINNET, None) == MAINNET.anchor
    write_anchor(tmp_path, MAINNET, NEWER)
    assert read_anchor(tmp_path, MAINNET) == NEWER
    assert best_anchor(MAINNET, tmp_path) == NEWER
    assert read_anchor(tmp_path, REGTEST) is None


def test_a_newer_release_outdates_a_kept_anchor(tmp_path: Path) -> None:
    write_anchor(tmp_path, MAINNET, Anchor(700_000, b"\x07" * 32))
    assert best_anchor(MAINNET, tmp_path) == MAINNET.anchor


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"height":-1,"hash":"","chainwork":"1"}'])
def test_an_unreadable_anchor_is_not_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "anchor-mainnet.json").write_text(text)
    with pytest.raises(OperationError, match="isoproxy names anchor"):
        best_anchor(MAINNET, tmp_path)
