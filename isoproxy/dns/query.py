"""DNS queries as they arrive, and the answers that need no records.

Theory of operation
    A server of this kind sees one shape of packet: a header, one question without
    compression, and perhaps one OPT record (EDNS, RFC 6891).  `parse_query` accepts
    exactly that.  Everything else is refused with a header of twelve bytes, or dropped
    where an answer could start a loop between two servers.

    Option 65312 holds the isolation ID of the look-up: raw bytes, possibly none.  It is
    read here, for every packet, before anything is looked up anywhere.

Invariants
    Work is linear in the packet.  `parse_query` raises nothing.  What `bare_response`
    makes is at most 11 bytes, and the isolation option that was sent, longer than the
    question it answers; an `ExtendedError` comes on top of that.  The question is repeated
    byte for byte, so the letters' case that a resolver drew (0x20) comes back.

Specification: RFC 1035 §4, RFC 6891 §6, RFC 8914 §2 (extended errors), RFC 9824 §5 (the
CO flag).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

ISOLATION_OPTION: Final = 65312
_ERROR_OPTION: Final = 15
MAX_ISOLATION_ID: Final = 255
"""Bytes of an isolation ID."""
MAX_MESSAGE: Final = 65535
OUR_PAYLOAD: Final = 1232
"""Bytes of a UDP message that no path fragments (DNS flag day 2020)."""
_LEAST_PAYLOAD: Final = 512

_HEADER: Final = struct.Struct("!HHHHHH")
HEADER_LENGTH: Final = _HEADER.size
_OPT: Final = struct.Struct("!BHHBBHH")
_ERROR_HEAD: Final = struct.Struct("!HHH")
_OPT_TYPE: Final = 41
_MAX_NAME: Final = 255


class Header:
    """The flags of a message's second word."""

    QR: Final = 0x8000
    AA: Final = 0x0400
    TC: Final = 0x0200
    RD: Final = 0x0100
    CD: Final = 0x0010


OPCODE: Final = 0x7800
_COPIED: Final = OPCODE | Header.RD | Header.CD
_DO: Final = 0x8000
_CO: Final = 0x4000

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
YXDOMAIN: Final = 6
BADVERS: Final = 16

CLASS_IN: Final = 1
NXNAME: Final = 128
"""The type that marks a denial of a name; no query may ask for it (RFC 9824 §3.5)."""


@dataclass(frozen=True, slots=True)
class Edns:
    """The OPT record of a query; `isolation` is None where the option is absent."""

    payload: int
    version: int
    wants_dnssec: bool
    compact_ok: bool
    isolation: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class Query:
    """One well-formed query.

    `labels` is the name in the case it came in, without the root label; `question` is
    the question section byte for byte.
    """

    id: int
    flags: int
    labels: tuple[bytes, ...]
    rdtype: int
    rdclass: int
    question: bytes
    edns: Edns | None

    @property
    def isolation(self) -> bytes | None:
        """The isolation ID, None if the query has none."""
        return None if self.edns is None else self.edns.isolation

    @property
    def wants_dnssec(self) -> bool:
        return self.edns is not None and self.edns.wants_dnssec

    @property
    def udp_limit(self) -> int:
        """Bytes of the longest answer that may go back in one datagram."""
        if self.edns is None:
            return _LEAST_PAYLOAD
        return min(max(self.edns.payload, _LEAST_PAYLOAD), OUR_PAYLOAD)

    @property
    def response_flags(self) -> int:
        """What an answer's flags take over from the query, and QR."""
        return Header.QR | (self.flags & _COPIED)

    def __repr__(self) -> str:
        return "<Query>"


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """Why there is no answer: an INFO-CODE of RFC 8914 §4, and a sentence."""

    code: int
    text: str

    def option(self, room: int) -> bytes:
        """The option, in at most `room` bytes: without its text if that does not fit."""
        text = self.text.encode()
        if _ERROR_HEAD.size + len(text) > room:
            text = b""
        if _ERROR_HEAD.size > room:
            return b""
        return _ERROR_HEAD.pack(_ERROR_OPTION, 2 + len(text), self.code) + text


@dataclass(frozen=True, slots=True)
class Rejected:
    """A packet that is not a query for this server; `response` says so."""

    response: bytes


class _Malformed(Exception):
    pass


def parse_query(packet: bytes) -> Query | Rejected | None:
    """The query in `packet`; None where nothing must be answered."""
    if len(packet) < _HEADER.size:
        return None
    identity, flags, questions, answers, authority, additional = _HEADER.unpack_from(packet)
    if flags & Header.QR:
        return None
    if flags & OPCODE:
        return Rejected(_header(identity, flags, NOTIMP))
    if (questions, answers, authority) != (1, 0, 0) or additional > 1:
        return Rejected(_header(identity, flags, FORMERR))
    try:
        labels, end = _name(packet)
        edns = _edns(packet, end) if additional else None
    except _Malformed:
        return Rejected(_header(identity, flags, FORMERR))
    if not additional and len(packet) != end:
        return Rejected(_header(identity, flags, FORMERR))
    rdtype, rdclass = struct.unpack_from("!HH", packet, end - 4)
    return Query(identity, flags, labels, rdtype, rdclass, packet[_HEADER.size : end], edns)


def bare_response(
    query: Query,
    rcode: int,
    *,
    truncated: bool = False,
    error: ExtendedError | None = None,
    limit: int = MAX_MESSAGE,
) -> bytes:
    """An answer without records: the question again, a response code, our own OPT.

    Where the query has an OPT record, so much of `error` goes with it as fits into `limit`.
    """
    bare = response(query, rcode, b"", (0, 0, 0), truncated=truncated)
    if error is None or query.edns is None:
        return bare
    own, option = _own_opt(query.edns, rcode >> 4), error.option(limit - len(bare))
    return bare[: -len(own)] + _own_opt(query.edns, rcode >> 4, option)


def response(
    query: Query,
    rcode: int,
    records: bytes,
    counts: tuple[int, int, int],
    *,
    authoritative: bool = False,
    truncated: bool = False,
) -> bytes:
    """The message with `records` between the question and our own OPT.

    `counts` are the numbers of records in the answer, authority and additional sections.
    """
    flags = query.response_flags | (rcode & 0xF)
    if authoritative:
        flags |= Header.AA
    if truncated:
        flags |= Header.TC
    opt = b"" if query.edns is None else _own_opt(query.edns, rcode >> 4)
    answers, authority, additional = counts
    additional += 1 if opt else 0
    head = _HEADER.pack(query.id, flags, 1, answers, authority, additional)
    return head + query.question + records + opt


def _header(identity: int, flags: int, rcode: int) -> bytes:
    return _HEADER.pack(identity, Header.QR | (flags & _COPIED) | rcode, 0, 0, 0, 0)


def _own_opt(edns: Edns, extended_rcode: int, options: bytes = b"") -> bytes:
    if edns.isolation is not None:
        options += struct.pack("!HH", ISOLATION_OPTION, len(edns.isolation)) + edns.isolation
    flags = (_DO if edns.wants_dnssec else 0) | (_CO if edns.compact_ok else 0)
    head = _OPT.pack(0, _OPT_TYPE, OUR_PAYLOAD, extended_rcode, 0, flags, len(options))
    return head + options


def _name(packet: bytes) -> tuple[tuple[bytes, ...], int]:
    """The labels of the question's name, and where the question ends."""
    labels = []
    at = _HEADER.size
    while True:
        if at >= len(packet):
            raise _Malformed
        length = packet[at]
        at += 1
        if not length:
            break
        if length > 63 or at + length - _HEADER.size >= _MAX_NAME:
            raise _Malformed
        labels.append(packet[at : at + length])
        at += length
    if at + 4 > len(packet):
        raise _Malformed
    return tuple(labels), at + 4


def _edns(packet: bytes, at: int) -> Edns:
    """The OPT record that is the rest of `packet`."""
    if len(packet) - at < _OPT.size:
        raise _Malformed
    root, rdtype, payload, _, version, flags, length = _OPT.unpack_from(packet, at)
    at += _OPT.size
    if root or rdtype != _OPT_TYPE or len(packet) != at + length:
        raise _Malformed
    isolation = _isolation_option(packet, at)
    return Edns(payload, version, bool(flags & _DO), bool(flags & _CO), isolation)


def _isolation_option(packet: bytes, at: int) -> bytes | None:
    """The isolation ID among the options from `at` on; sent twice it is ambiguous."""
    isolation = None
    while at < len(packet):
        if at + 4 > len(packet):
            raise _Malformed
        code, length = struct.unpack_from("!HH", packet, at)
        at += 4
        if at + length > len(packet):
            raise _Malformed
        if code == ISOLATION_OPTION:
            if isolation is not None or length > MAX_ISOLATION_ID:
                raise _Malformed
            isolation = packet[at : at + length]
        at += length
    return isolation
