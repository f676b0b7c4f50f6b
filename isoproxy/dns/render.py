"""From an answer to the bytes that go out.

Theory of operation
    Header, question and OPT record are written as `dns_query` writes them; dnspython writes
    the RRsets between them, with name compression.  With the DO flag each RRset of the zone
    is followed by its signature and a denial by its proof; the response code of a denial is
    then NOERROR, as compact denial has it (RFC 9824 §3), unless the client says with the CO
    flag that it understands.  What does not fit goes out empty with the TC flag, and the
    client comes back over TCP.

Invariants
    The question is the client's, letter for letter.  An answer is at most `limit` bytes.

Specification: RFC 1035 §4.1 (messages), RFC 4035 §3.1 (signatures), RFC 6891 §6 (OPT).
"""

from __future__ import annotations

import random
import struct
from io import BytesIO
from typing import Final

import dns.name
import dns.rrset
from dns.rdatatype import RdataType

from isoproxy.dns.answer import DnsAnswer, Entry
from isoproxy.dns.query import (
    HEADER_LENGTH,
    MAX_MESSAGE,
    NOERROR,
    NXDOMAIN,
    Query,
    bare_response,
    response,
)
from isoproxy.dns.sign import Signer, nsec

_RECORD: Final = struct.Struct("!HHHIH")
_QUESTION: Final = 0xC000 | HEADER_LENGTH
"""A pointer to the name in the question (RFC 1035 §4.1.4)."""
_WITHOUT_NAMES: Final = frozenset({RdataType.A, RdataType.AAAA, RdataType.TXT, RdataType.TLSA})
"""Types whose data holds no name to be compressed."""

_Sections = tuple[list[dns.rrset.RRset], list[dns.rrset.RRset], list[dns.rrset.RRset]]


def render(query: Query, answer: DnsAnswer, signer: Signer | None, limit: int) -> bytes:
    """The response to `query`, at most `limit` bytes long."""
    rcode = answer.rcode
    if signer is not None and query.wants_dnssec:
        sections = _signed_sections(query, answer, signer)
        assert query.edns is not None
        if rcode == NXDOMAIN and not query.edns.compact_ok:
            rcode = NOERROR
    else:
        sections = _plain_sections(answer)
    records, counts = _records(query, sections)
    wire = response(query, rcode, records, counts, authoritative=answer.authoritative)
    if len(wire) > min(limit, MAX_MESSAGE):
        return bare_response(query, rcode, truncated=True)
    return wire


def _plain_sections(answer: DnsAnswer) -> _Sections:
    """Without the DO flag a referral says nothing of how the child is signed."""
    authority = [
        entry.rrset for entry in answer.authority if entry.rrset.rdtype is not RdataType.DS
    ]
    return (
        [entry.rrset for entry in answer.answer],
        authority,
        [entry.rrset for entry in answer.additional],
    )


def _signed_sections(query: Query, answer: DnsAnswer, signer: Signer) -> _Sections:
    first = _signed(answer.answer, signer)
    authority = _signed(answer.authority, signer)
    if answer.denial is not None:
        proof = _signed([Entry(nsec(answer.denial))], signer)
        if query.rdtype == RdataType.NSEC:
            first, authority = first + proof, []
        else:
            authority += proof
    return first, authority, [entry.rrset for entry in answer.additional]


def _records(query: Query, sections: _Sections) -> tuple[bytes, tuple[int, int, int]]:
    """The records behind the question, names compressed, and their number by section."""
    (first, authority, additional) = sections
    if len(first) == 1 and not (authority or additional) and first[0].rdtype in _WITHOUT_NAMES:
        return _at_the_question(first[0]), (len(first[0]), 0, 0)
    output = BytesIO()
    output.write(bytes(HEADER_LENGTH))
    compress: dns.name.CompressType = {}
    dns.name.Name((*query.labels, b"")).to_wire(output, compress)
    output.write(query.question[-4:])
    counts = tuple(sum(rrset.to_wire(output, compress) for rrset in part) for part in sections)
    (answers, authorities, additionals) = counts
    records = output.getvalue()[HEADER_LENGTH + len(query.question) :]
    return records, (answers, authorities, additionals)


def _at_the_question(rrset: dns.rrset.RRset) -> bytes:
    """The records of the name asked for, as dnspython writes them, in a fraction of the time."""
    written, rdatas = [], list(rrset)
    random.shuffle(rdatas)  # no client alone makes use of the first
    for rdata in rdatas:
        data = rdata.to_wire() or b""
        head = _RECORD.pack(_QUESTION, rrset.rdtype, rrset.rdclass, rrset.ttl, len(data))
        written.append(head + data)
    return b"".join(written)


def _signed(entries: list[Entry], signer: Signer) -> list[dns.rrset.RRset]:
    rrsets = []
    for entry in entries:
        rrsets.append(entry.rrset)
        if entry.signed:
            rrsets.append(signer.signature(entry.rrset))
    return rrsets
