from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.params import REGTEST, TESTNET, Anchor
from isoproxy.namecoin.chain.store import RECORD_LENGTH, HeaderStore
from tests.kit.namecoin.chain import RegtestChain

ANCHOR = Anchor(10, b"\x0a" * 32)


def header(number: int) -> bytes:
    return number.to_bytes(80, "little")


def headers(*numbers: int) -> bytes:
    return b"".join(map(header, numbers))


def opened(directory: Path, anchor: Anchor = ANCHOR) -> HeaderStore:
    return HeaderStore(directory, REGTEST, anchor)


def reread(directory: Path, anchor: Anchor = ANCHOR) -> tuple[list[bytes], list[bytes]]:
    store = opened(directory, anchor)
    loaded = store.load()
    store.close()
    return loaded


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store = opened(tmp_path)
    assert store.load() == ([], [])
    store.append_down(headers(8, 9, 10))
    store.append_up(headers(11, 12))
    store.append_down(headers(6, 7))
    store.append_up(headers(13))
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
    store.replace_above(11, headers(112, 113, 114))
    store.append_up(headers(115))
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
    assert store.load() == (DOWN, UP[:2])
    store.append_up(headers(13))
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
    assert store.load() == ([], [])
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
    store.append_up(b"".join(raws[1:]))
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load() == (raws[:1], raws[1:])
    store.close()


def test_a_chain_is_restored_and_what_does_not_fit_is_forgotten(tmp_path: Path) -> None:
    raws = [raw[:80] for raw in RegtestChain.recorded().headers()]
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.append_down(raws[0])
    store.append_up(b"".join([*raws[1:50], *raws[60:]]))
    for _ in range(2):
        chain = HeaderChain(REGTEST)
        store.restore(chain, 2_000_000_000)
        assert chain.tip_height == 49
    assert store.load() == (raws[:1], raws[1:50])
    store.clear()
    store.append_down(raws[1])
    chain = HeaderChain(REGTEST)
    store.restore(chain, 2_000_000_000)
    assert chain.tip_height == 0
    assert store.load() == ([], [])
    store.close()


def test_a_full_disk_stops_nobody_and_what_is_stored_is_right(tmp_path: Path) -> None:
    raws = [raw[:80] for raw in RegtestChain.recorded().headers()]
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    store.load()
    store.append_down(raws[0])
    store.append_up(b"".join(raws[1:10]))
    size = (tmp_path / "headers-regtest.up").stat().st_size
    with full_disk(size + 2 * RECORD_LENGTH + 10):
        store.append_up(b"".join(raws[10:20]))
    store.append_up(b"".join(raws[20:30]))  # there is room again, but a gap
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load() == (raws[:1], raws[1:12])
    store.append_up(b"".join(raws[12:30]))
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load() == (raws[:1], raws[1:30])
    store.close()


def test_a_first_start_on_a_full_disk(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    chain = HeaderChain(REGTEST)
    with full_disk(8):
        store.restore(chain, 2_000_000_000)
    store.close()
    store = HeaderStore(tmp_path, REGTEST, REGTEST.anchor)
    assert store.load() == ([], [])
    store.close()
