"""Verified headers on disk, so that a start takes a second and not an hour.

Theory of operation
    Two files per network, because the chain grows at both ends and files only at one:
    `headers-NAME.up` holds the headers above the trust anchor, lowest first,
    `headers-NAME.down` the anchor and what is below it, highest first.  Both begin with a
    preamble that names the network's anchor, and go on with records of equal size:

        80 bytes header | CRC-32 over height (4 bytes LE) and header

    A third one, `headers-NAME.proven`, says of which headers above the anchor the proof of
    work was checked, in any order:

        height (4 bytes LE) | hash of the block | CRC-32 of these

    It is written before the headers and never changed: what it says of a block that was
    replaced, or never came to be stored, says nothing of the one that is at its height.

    Writing appends whole records; a replaced branch is cut off first.  A process that is
    killed in between leaves at most a torn record or a shorter file.  Reading takes
    records up to the first that is torn or does not match its checksum, cuts the file
    there, and leaves the rest to be fetched again.  So the disk is never waited for, which
    would stop every stream of the process.

    A disk that takes no more is given up until the next start: what is not stored is
    fetched again then, and no look-up depends on it.

    The checksums guard against accidents.  Against a hostile disk nothing here helps,
    and nothing could: links, difficulty and times are checked again by the chain, the
    merged-mining proofs are not kept.

Invariants
    A file of another anchor or format is discarded, never half-believed.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import HEADER_LENGTH, Header
from isoproxy.namecoin.chain.header_chain import HeaderChain, first_height_needed
from isoproxy.namecoin.chain.params import Anchor, ChainParams
from isoproxy.namecoin.chain.transaction import double_sha256
from isoproxy.observe.log import logger

_log = logger("names")

_MAGIC: Final = b"isoproxy headers 2\n"
_CHECKSUM_LENGTH: Final = 4
RECORD_LENGTH: Final = HEADER_LENGTH + _CHECKSUM_LENGTH
_PROOF: Final = struct.Struct("<I32s")
PROOF_LENGTH: Final = _PROOF.size + _CHECKSUM_LENGTH
_FILE_MODE: Final = 0o600


def _checksum(height: int, header: bytes) -> bytes:
    return zlib.crc32(header, zlib.crc32(height.to_bytes(4, "little"))).to_bytes(4, "little")


def _preamble(network: ChainParams, anchor: Anchor) -> bytes:
    name = network.name.encode().ljust(16, b"\0")
    return _MAGIC + name + anchor.height.to_bytes(4, "little") + anchor.block_hash


class _File:
    """A file that begins with `preamble`; another one is made empty."""

    def __init__(self, path: Path, preamble: bytes) -> None:
        self._preamble = preamble
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE
        )
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")

    def _begin(self) -> None:
        """Stand behind the preamble, of an empty file if need be."""
        self._file.seek(0)
        if self._file.read(len(self._preamble)) != self._preamble:
            self._file.truncate(0)
            self._write(0, self._preamble)
            self._file.seek(len(self._preamble))

    def _keep(self, length: int) -> None:
        """Keep `length` bytes behind the preamble."""
        self._file.truncate(len(self._preamble) + length)
        self._file.flush()

    def _write(self, at: int, data: bytes) -> None:
        """Past the buffer, which would keep what the disk did not take for later."""
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            at, data = at + written, data[written:]

    def close(self) -> None:
        self._file.close()


class _RecordFile(_File):
    """Headers of consecutive heights `first`, `first + step`, ..."""

    def __init__(self, path: Path, preamble: bytes, first: int, step: int) -> None:
        super().__init__(path, preamble)
        self._first = first
        self._step = step
        self._count = 0

    def read(self) -> list[bytes]:
        """The headers that are whole; everything behind them is cut off."""
        self._begin()
        headers = list(self._records())
        self._count = len(headers)
        self.cut(self._count)
        return headers

    def _records(self) -> Iterator[bytes]:
        height = self._first
        while len(record := self._file.read(RECORD_LENGTH)) == RECORD_LENGTH:
            header, checksum = record[:HEADER_LENGTH], record[HEADER_LENGTH:]
            if height < 0 or checksum != _checksum(height, header):
                return
            yield header
            height += self._step

    def cut(self, count: int) -> None:
        """Keep the first `count` records."""
        self._count = min(count, self._count)
        self._keep(self._count * RECORD_LENGTH)

    def append(self, headers: list[bytes]) -> None:
        """Add records behind the last one."""
        height = self._first + self._step * self._count
        parts = []
        for header in headers:
            parts.append(header + _checksum(height, header))
            height += self._step
        self._write(len(self._preamble) + self._count * RECORD_LENGTH, b"".join(parts))
        self._count += len(headers)


class _ProofFile(_File):
    """Which blocks are proven: their heights and hashes."""

    def __init__(self, path: Path, preamble: bytes) -> None:
        super().__init__(path, preamble)
        self._count = 0

    def read(self) -> set[tuple[int, bytes]]:
        """All of them; what is behind a torn record is cut off."""
        self._begin()
        found = list(self._records())
        self._count = len(found)
        self._keep(self._count * PROOF_LENGTH)
        return set(found)

    def _records(self) -> Iterator[tuple[int, bytes]]:
        while len(record := self._file.read(PROOF_LENGTH)) == PROOF_LENGTH:
            packed, checksum = record[: _PROOF.size], record[_PROOF.size :]
            if checksum != zlib.crc32(packed).to_bytes(_CHECKSUM_LENGTH, "little"):
                return
            yield _PROOF.unpack(packed)

    def append(self, blocks: list[tuple[int, bytes]]) -> None:
        """Add records behind the last one."""
        packed = [_PROOF.pack(*block) for block in blocks]
        checksums = [zlib.crc32(one).to_bytes(_CHECKSUM_LENGTH, "little") for one in packed]
        data = b"".join(map(bytes.__add__, packed, checksums))
        self._write(len(self._preamble) + self._count * PROOF_LENGTH, data)
        self._count += len(blocks)

    def clear(self) -> None:
        """Forget all."""
        self._count = 0
        self._keep(0)


def _split(raw: bytes) -> list[bytes]:
    return [raw[at : at + HEADER_LENGTH] for at in range(0, len(raw), HEADER_LENGTH)]


class HeaderStore:
    """The files of one network in `directory`, which exists.

    Use: `restore` (or `load`) once, then `append_up`, `append_down`, `replace_above` and
    `append_proven` as the chain grows and is proven.
    """

    def __init__(self, directory: Path, network: ChainParams, anchor: Anchor) -> None:
        self._is_given_up = False
        preamble = _preamble(network, anchor)
        self._anchor = anchor
        self._up = _RecordFile(
            directory / f"headers-{network.name}.up", preamble, anchor.height + 1, 1
        )
        self._down = _RecordFile(
            directory / f"headers-{network.name}.down", preamble, anchor.height, -1
        )
        self._proven = _ProofFile(directory / f"headers-{network.name}.proven", preamble)

    def load(self) -> tuple[list[bytes], list[bytes], bytearray]:
        """Headers from the anchor down, those from above the anchor up, and for each of these
        1 if it is proven."""
        down, up = self._down.read(), self._up.read()
        known, first = self._proven.read(), self._anchor.height + 1
        proven = (((first + at), double_sha256(header)) in known for at, header in enumerate(up))
        return down, up, bytearray(proven)

    def restore(self, chain: HeaderChain, now: int) -> None:
        """`load` into an empty `chain`; what does not fit there is forgotten here too.

        `now` is in s since 1970.
        """
        try:
            down, up, proven = self.load()
        except OSError as error:
            self._give_up(error)
            return
        try:
            if len(down) <= self._anchor.height - first_height_needed(chain.network, self._anchor):
                raise RemoteProtocolError("the stored headers do not reach down far enough")
            chain.extend_down([Header.parse(raw) for raw in reversed(down)])
        except RemoteProtocolError:
            self.clear()
            return
        if chain.restore(up, proven, now) < len(up):
            self._store(lambda: self._up.cut(chain.tip_height - self._anchor.height))

    def append_down(self, raw: bytes) -> None:
        """Add headers (80 bytes each, lowest first) below the lowest there is."""
        self._store(lambda: self._down.append(_split(raw)[::-1]))

    def append_proven(self, start: int, raw: bytes) -> None:
        """The headers `raw` (80 bytes each, the first at height `start`) are proven."""
        blocks = [(start + at, double_sha256(header)) for at, header in enumerate(_split(raw))]
        self._store(lambda: self._proven.append(blocks))

    def replace_above(self, height: int, raw: bytes, proven: Sequence[int]) -> None:
        """Forget what is above `height` and put headers there (80 bytes each, lowest first)
        of which those are proven that `proven` says so of; the anchor always stays."""
        headers = _split(raw)
        blocks = [
            (height + 1 + at, double_sha256(header))
            for at, (header, is_proven) in enumerate(zip(headers, proven, strict=True))
            if is_proven
        ]
        self._store(lambda: self._proven.append(blocks))
        self._store(lambda: self._up.cut(height - self._anchor.height))
        self._store(lambda: self._up.append(headers))

    def clear(self) -> None:
        """Forget everything."""
        self._store(lambda: self._up.cut(0))
        self._store(lambda: self._down.cut(0))
        self._store(self._proven.clear)

    def _store(self, change: Callable[[], None]) -> None:
        if self._is_given_up:
            return
        try:
            change()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._is_given_up = True
        _log.warn(
            "headers_not_stored",
            problem=error.strerror,
            advice="make room in the state directory; they are stored again after a restart",
        )

    def close(self) -> None:
        for file in (self._up, self._down, self._proven):
            file.close()
