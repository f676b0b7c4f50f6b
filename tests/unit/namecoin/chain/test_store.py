from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.params import REGTEST, TESTNET, Anchor
from isoproxy.namecoin.chain.sampling import FULL_TAIL
from isoproxy.namecoin.chain.store import PROOF_LENGTH, RECORD_LENGTH, HeaderStore
from tests.kit.namecoin.chain import RegtestChain

ANCHOR = Anchor(10, b"\x0a" * 32)


def header(number: int) -> bytes:
    return number.to_bytes(80, "little")


def headers(*numbers: int) -> bytes:
    return b"".join(map(header, numbers))


def opened(directory: Path, anchor: Anchor = ANCHOR) -> HeaderStore:
    return HeaderStore(directory, REGTEST, anchor)


def put(store: HeaderStore, height: int, raw: bytes) -> None:
    """Put headers on top of the one at `height`, as proven ones."""
    store.replace_above(height, raw, b"\1" * (len(raw) // 80))


def reread(directory: Path, anchor: Anchor = ANCHOR) -> tuple[list[bytes], list[bytes]]:
    store = opened(directory, anchor)
    loaded = store.load()
    store.close()
    return loaded[:2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store = opened(tmp_path)
    assert store.load()[:2] == ([], [])
    store.append_down(headers(8, 9, 10))
    put(store, 10, headers(11, 12))
    store.append_down(headers(6, 7))
    put(store, 12, headers(13))
    store.close()
    return tmp_path


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: the kernel refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


DOWN, UP = [header(n) for n in (10, 9, 8, 7, 6)], [header(n) for n in (11, 12, 13)]


def test_headers_come_back(directory: Path) -> None:
    assert reread(directory) == (DOWN, UP)
    assert reread(directory) == (DOWN, UP)


def test_files_are_private(directory: Path) -> None:
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_branch_is_replaced(directory: Path) -> None:
    store = opened(directory)
    store.load()
    put(store, 11, headers(112, 113, 114))
    put(store, 14, headers(115))
    store.close()
    assert reread(directory) == (DOWN, [header(n) for n in (11, 112, 113, 114, 115)])


def test_everything_is_forgotten(directory: Path) -> None:
    store = opened(directory)
    store.load()
    store.clear()
    store.close()
    assert reread(directory) == ([], [])


@pytest.mark.parametrize("cut", [1, 4, RECORD_LENGTH - 1])
def test_a_torn_record_is_cut_off_and_written_again(directory: Path, cut: int) -> None:
    path = directory / "headers-regtest.up"
    os.truncate(path, path.stat().st_size - cut)
    store = opened(directory)
    assert store.load()[:2] == (DOWN, UP[:2])
    put(store, 12, headers(13))
    store.close()
    assert reread(directory) == (DOWN, UP)


@pytest.mark.parametrize("offset", [0, 40, 79, 80, 83])
def test_a_flipped_bit_ends_what_is_believed(directory: Path, offset: int) -> None:
    path = directory / "headers-regtest.up"
    raw = bytearray(path.read_bytes())
    start = len(raw) - 3 * RECORD_LENGTH + RECORD_LENGTH
    raw[start + offset] ^= 0x10
    path.write_bytes(raw)
    assert reread(directory) == (DOWN, UP[:1])


def test_a_record_in_another_place_is_noticed(directory: Path) -> None:
    path = directory / "headers-regtest.up"
    raw = path.read_bytes()
    start = len(raw) - 3 * RECORD_LENGTH
    path.write_bytes(raw[:start] + raw[start + RECORD_LENGTH :])
    assert reread(directory) == (DOWN, [])


@pytest.mark.parametrize("anchor", [Anchor(11, ANCHOR.block_hash), Anchor(10, bytes(32))])
def test_another_anchor_starts_afresh(directory: Path, anchor: Anchor) -> None:
    assert reread(directory, anchor) == ([], [])


def test_another_network_has_other_files(directory: Path) -> None:
    store = HeaderStore(directory, TESTNET, ANCHOR)
    assert store.load()[:2] == ([], [])
    store.close()
    assert reread(directory) == (DOWN, UP)


@pytest.mark.parametrize("content", [b"", b"x", b"isoproxy headers 0\n" + bytes(500)])
def test_a_file_of_another_kind_is_discarded(directory: Path, content: bytes) -> None:
    (directory / "headers-regtest.up").write_bytes(content)
    assert reread(directory) == (DOWN, [])
    assert reread(directory) == (DOWN, [])


def test_the_recorded_chain_in_the_store(tmp_path: Path) -> None:
    raws = [raw[:80] for raw in RegtestChain.recorded().headers()]
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.append_down(raws[0])
    put(store, 0, b"".join(raws[1:]))
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load()[:2] == (raws[:1], raws[1:])
    store.close()


def test_a_chain_is_restored_and_what_does_not_fit_is_forgotten(tmp_path: Path) -> None:
    raws = [raw[:80] for raw in RegtestChain.recorded().headers()]
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.append_down(raws[0])
    put(store, 0, b"".join(raws[1:50]))
    put(store, 49, b"".join(raws[60:]))
    for _ in range(2):
        chain = HeaderChain(REGTEST)
        store.restore(chain, 2_000_000_000)
        assert chain.tip_height == 49
    assert store.load()[:2] == (raws[:1], raws[1:50])
    store.clear()
    store.append_down(raws[1])
    chain = HeaderChain(REGTEST)
    store.restore(chain, 2_000_000_000)
    assert chain.tip_height == 0
    assert store.load()[:2] == ([], [])
    store.close()


def test_a_full_disk_stops_nobody_and_what_is_stored_is_right(tmp_path: Path) -> None:
    raws = [raw[:80] for raw in RegtestChain.recorded().headers()]
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.append_down(raws[0])
    put(store, 0, b"".join(raws[1:10]))
    size = (tmp_path / "headers-regtest.up").stat().st_size
    with full_disk(size + 2 * RECORD_LENGTH + 10):
        put(store, 9, b"".join(raws[10:20]))
    put(store, 19, b"".join(raws[20:30]))  # there is room again, but a gap
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load()[:2] == (raws[:1], raws[1:12])
    put(store, 11, b"".join(raws[12:30]))
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load()[:2] == (raws[:1], raws[1:30])
    store.close()


def test_a_first_start_on_a_full_disk(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    chain = HeaderChain(REGTEST)
    with full_disk(8):
        store.restore(chain, 2_000_000_000)
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load()[:2] == ([], [])
    store.close()


# -- which are proven --------------------------------------------------------------------


def raws_of_recorded() -> list[bytes]:
    return [raw[:80] for raw in RegtestChain.recorded().headers()]


def sampled(directory: Path, proven: bytes) -> list[bytes]:
    """A stored chain of which those are proven that `proven` says so of."""
    raws = raws_of_recorded()
    store = HeaderStore(directory, REGTEST, REGTEST.anchor)
    store.load()
    store.append_down(raws[0])
    store.replace_above(0, b"".join(raws[1 : 1 + len(proven)]), proven)
    store.close()
    return raws


def restored(directory: Path) -> tuple[HeaderChain, HeaderStore]:
    store, chain = HeaderStore(directory, REGTEST, REGTEST.anchor), HeaderChain(REGTEST)
    store.restore(chain, 2_000_000_000)
    return chain, store


TAIL = b"\1" * FULL_TAIL


def test_which_are_proven_comes_back_and_more_can_be(tmp_path: Path) -> None:
    proven = b"\1\1\0\0\1\0\1\0\0\0" + TAIL
    raws = sampled(tmp_path, proven)
    chain, store = restored(tmp_path)
    assert [chain.is_proven(1 + at) for at in range(len(proven))] == [bool(x) for x in proven]
    assert chain.unproven_heights() == [3, 4, 6, 8, 9, 10]
    store.append_proven(3, b"".join(raws[3:7]))
    store.close()
    chain, store = restored(tmp_path)
    assert chain.unproven_heights() == [8, 9, 10]
    store.close()


def test_a_chain_whose_newest_are_not_proven_is_taken_back_to_where_all_are(tmp_path: Path) -> None:
    """A torn file: the draw was for another tip."""
    sampled(tmp_path, b"\1\1\1\0\0\1" + TAIL)
    path = tmp_path / "headers-regtest.up"
    os.truncate(path, path.stat().st_size - RECORD_LENGTH - 1)
    chain, store = restored(tmp_path)
    assert (chain.tip_height, chain.unproven) == (3, 0)
    store.close()
    assert path.stat().st_size < 10 * RECORD_LENGTH


def test_what_is_said_of_blocks_that_were_replaced_says_nothing(tmp_path: Path) -> None:
    raws = sampled(tmp_path, b"\1\1\1" + TAIL)
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.replace_above(1, b"".join(raws[60:88]), b"\0" * 28)
    _, up, proven = store.load()
    assert (len(up), bytes(proven)) == (29, b"\1" + b"\0" * 28)
    store.close()


@pytest.mark.parametrize("offset", [0, 5, 20, 39])
def test_a_flipped_bit_proves_nothing(tmp_path: Path, offset: int) -> None:
    sampled(tmp_path, b"\1\0" + TAIL)
    path = tmp_path / "headers-regtest.proven"
    raw = bytearray(path.read_bytes())
    raw[len(raw) - PROOF_LENGTH + offset] ^= 0x08
    path.write_bytes(raw)
    chain, store = restored(tmp_path)
    assert chain.tip_height == 1
    store.close()


def test_what_is_said_of_what_is_not_stored_says_nothing(tmp_path: Path) -> None:
    raws = sampled(tmp_path, b"\1" * 5)
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.append_proven(4, b"".join(raws[4:9]))
    store.append_proven(0, b"".join(raws[0:2]))
    assert bytes(store.load()[2]) == b"\1" * 5
    store.close()
