"""First bytes of Bitcoin streams, made at random, and a judge of what came out at the exits.

Theory of operation
    Most openings are v1 messages, well made and badly, of networks that everybody knows and
    of some that nobody does; the others are other protocols.  Each carries a mark that occurs
    nowhere else, cut into pieces that are sent apart.  What the far ends received is then
    searched for marks, for magics and for what is shaped like a v1 header.

Invariants
    Nothing of isoproxy's is asked: magics and types are a table of this module's own.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Final

MAGICS: Final = (
    # Bitcoin: main, test 3, test 4, signet, regtest
    b"\xf9\xbe\xb4\xd9",
    b"\x0b\x11\x09\x07",
    b"\x1c\x16\x3f\x28",
    b"\x0a\x03\xcf\x40",
    b"\xfa\xbf\xb5\xda",
    # Namecoin: main, test
    b"\xf9\xbe\xb4\xfe",
    b"\xfa\xbf\xb5\xfe",
    # btcd's simnet
    b"\x16\x1c\x14\x1c",
)
MARK_LENGTH: Final = 16

_MARK: Final = b"\xa7mark\xa7"

_TYPES: Final = tuple(
    b"version verack tx inv getdata block headers ping addr addrv2 getheaders getblocks sendcmpct"
    b" getcfilters cmpctblock sendaddrv2 wtxidrelay feature getcfcheckpt cfheaders".split()
)
_TYPE: Final = rb"[\x21-\x7e](?:[\x20-\x7e]{0,10}\x00{1,11}|[\x20-\x7e]{11})"
_KNOWN_MESSAGE: Final = re.compile(
    b"(?:" + b"|".join(re.escape(magic) for magic in MAGICS) + b")" + _TYPE, re.DOTALL
)
_OTHERS: Final = (
    b"GET / HTTP/1.1\r\nHost: www.test\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"EHLO mail.test\r\n",
    b"USER anonymous\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"\x05\x01\x00",
    b"\x13BitTorrent protocol",
    b"\x00\x00\x00\x2a",
    b"\r\n",
)


class Kind(Enum):
    """What an opening is."""

    KNOWN = "a v1 message of a known network"
    BROKEN = "a known magic, and then no header"
    UNKNOWN = "a v1 message of an unknown network"
    OTHER = "another protocol"


@dataclass(frozen=True)
class Opening:
    """What a client says first: `pieces`, each after a pause of so many seconds."""

    kind: Kind
    pieces: tuple[tuple[float, bytes], ...]
    mark: bytes

    @property
    def whole(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


@dataclass(frozen=True)
class Received:
    """What one connection brought to the far end, at the port that the client asked for."""

    port: int
    said: bytes


def opening(chance: random.Random, destination: tuple[str, int]) -> Opening:
    """One of any kind; a VERSION is addressed to `destination`."""
    kind = chance.choices(list(Kind), (6, 1, 2, 3))[0]
    mark = _MARK + os.urandom(MARK_LENGTH - len(_MARK))
    match kind:
        case Kind.KNOWN:
            said = _message(chance, chance.choice(MAGICS), mark, destination)
        case Kind.BROKEN:
            said = chance.choice(MAGICS) + os.urandom(chance.choice((0, 1, 4, 20))) + mark
        case Kind.UNKNOWN:
            said = _message(chance, _other_magic(), mark, destination)
        case Kind.OTHER:
            said = _other(chance) + mark
    pieces = tuple(_pieces(chance, said))
    if kind is not Kind.OTHER and chance.random() < 0.1:
        pieces = pieces[: chance.randrange(1, len(pieces) + 1)]
    return Opening(kind, pieces, mark)


def _message(
    chance: random.Random, magic: bytes, mark: bytes, destination: tuple[str, int]
) -> bytes:
    kind = chance.choice(_TYPES[:1] * 10 + _TYPES)
    payload = mark + os.urandom(chance.choice((0, 0, 1, 60, 3000)))
    if kind == b"version" and chance.random() < 0.9:
        payload = _version(mark, destination)
    checksum = hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    if chance.random() < 0.1:
        checksum = os.urandom(4)
    length = len(payload) if chance.random() < 0.9 else chance.randrange(1 << 32)
    return magic + kind.ljust(12, b"\0") + length.to_bytes(4, "little") + checksum + payload


def _version(mark: bytes, destination: tuple[str, int]) -> bytes:
    """The payload of a VERSION message; the mark is the user agent."""
    host, port = destination
    there = bytes(18) + b"\xff\xff" + ip_address(host).packed + port.to_bytes(2, "big")
    head = (70016).to_bytes(4, "little") + bytes(16) + there + bytes(26 + 8)
    agent = b"/" + mark.hex().encode() + mark + b"/"
    return head + bytes([len(agent)]) + agent + bytes(5)


def _other_magic() -> bytes:
    while (magic := os.urandom(4)) in MAGICS:
        pass
    return magic


def _other(chance: random.Random) -> bytes:
    """What is no v1, though it may begin as one."""
    match chance.randrange(4):
        case 0:
            return chance.choice(MAGICS)[: chance.randrange(1, 4)] + b"\0"
        case 1:
            return _other_magic() + b"\xff" + os.urandom(chance.randrange(100))
        case 2:
            return chance.choice(MAGICS)[::-1] + b"\x01"
        case _:
            return chance.choice(_OTHERS)


def _pieces(chance: random.Random, said: bytes) -> Iterable[tuple[float, bytes]]:
    """`said` in one piece mostly; a magic may come byte by byte, and slowly."""
    cuts: list[int] = []
    if chance.random() < 0.4:
        most = 8 if chance.random() < 0.7 else len(said)
        cuts = sorted({chance.randrange(1, most) for _ in range(chance.randrange(1, 4))})
    at = 0
    for cut in (*cuts, len(said)):
        pause = chance.choice((0.0, 0.0, 0.01, 0.05, 0.3)) if at else 0.0
        yield pause, said[at:cut]
        at = cut


def faults(
    received: Sequence[Received],
    openings: Iterable[Opening],
    *,
    listed: Collection[int],
    unknown_too: bool,
) -> list[str]:
    """What left in plaintext though it must not, one line each.

    Nothing of known networks may, on any port.  With `unknown_too` nothing that is shaped
    like a v1 header may at the `listed` ports, whatever its magic.
    """
    marks = {opening.mark: opening for opening in openings}
    found: list[str] = []
    for one in received:
        at = one.said.find(_MARK)
        opened = marks.get(one.said[at : at + MARK_LENGTH]) if at >= 0 else None
        kind = opened.kind if opened is not None else None
        closed = unknown_too and one.port in listed
        if kind in (Kind.KNOWN, Kind.BROKEN) or (kind is Kind.UNKNOWN and closed):
            assert kind is not None
            found.append(f"port {one.port}: the payload of {kind.value}: {_seen(one)}")
        elif one.said[:4] in MAGICS or _KNOWN_MESSAGE.search(one.said):
            found.append(f"port {one.port}: a known magic: {_seen(one)}")
        elif closed and _is_header(one.said):
            found.append(f"port {one.port}: a v1 header: {_seen(one)}")
    return found


def _is_header(said: bytes) -> bool:
    """Whether `said` begins as a v1 message, or with a part of a known one's header."""
    field = said[4:16]
    if len(field) < 12:
        return bool(field) and any(kind.startswith(field.rstrip(b"\0")) for kind in _TYPES)
    name = field.rstrip(b"\0")
    return name in _TYPES or (0 < len(name) < 12 and name.isalnum())


def missing(received: Sequence[Received], openings: Iterable[Opening]) -> list[Opening]:
    """Openings that did not arrive as they were sent: the far ends saw too little."""
    arrived = {one.said for one in received}
    return [opening for opening in openings if opening.whole not in arrived]


def _seen(one: Received) -> str:
    return one.said[:40].hex()
