"""From an answer to the bytes that go out.

Theory of operation
    dnspython writes the sections, with name compression.  With the DO flag each RRset of
    the zone is followed by its signature and a denial by its proof; the response code of
    a denial is then NOERROR, as compact denial has it (RFC 9824 §3), unless the client
    says with the CO flag that it understands.  What does not fit goes out empty with the
    TC flag, and the client comes back over TCP.

Invariants
    The question is the client's, letter for letter.  An answer is at most `limit` bytes.
"""

from __future__ import annotations

from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
from dns.rdataclass import IN
from dns.rdatatype import RdataType

from isoproxy.names.dns_answer import Answer, Entry
from isoproxy.names.dns_query import (
    ISOLATION_OPTION,
    NOERROR,
    NXDOMAIN,
    OUR_PAYLOAD,
    Query,
    bare_response,
)
from isoproxy.names.dns_sign import Signer, nsec

_DO: Final = 0x8000
_ISOLATION: Final = dns.edns.OptionType.make(ISOLATION_OPTION)


def render(query: Query, answer: Answer, signer: Signer | None, limit: int) -> bytes:
    """The response to `query`, at most `limit` bytes long."""
    message = dns.message.Message(id=query.id)
    rcode = answer.rcode
    if signer is not None and query.wants_dnssec:
        message.sections[1] = _signed(answer.answer, signer)
        message.sections[2] = _signed(answer.authority, signer)
        if answer.denial is not None:
            proof = _signed([Entry(nsec(answer.denial))], signer)
            if query.rdtype == RdataType.NSEC and not answer.answer:
                message.sections[1], message.sections[2] = proof, []
            else:
                message.sections[2] += proof
        assert query.edns is not None
        if rcode == NXDOMAIN and not query.edns.compact_ok:
            rcode = NOERROR
    else:
        message.sections[1] = [entry.rrset for entry in answer.answer]
        message.sections[2] = [entry.rrset for entry in answer.authority if _plain(entry)]
    message.sections[3] = [entry.rrset for entry in answer.additional]
    message.question = [_question(query)]
    flags = dns.flags.Flag(query.response_flags)
    message.flags = flags | dns.flags.AA if answer.authoritative else flags
    if query.edns is not None:
        options: list[dns.edns.Option] = []
        if query.edns.isolation is not None:
            options.append(dns.edns.GenericOption(_ISOLATION, query.edns.isolation))
        ednsflags = _DO if query.edns.wants_dnssec else 0
        message.use_edns(0, ednsflags, OUR_PAYLOAD, options=options)
    message.set_rcode(dns.rcode.Rcode.make(rcode))
    try:
        wire = message.to_wire(max_size=limit)
    except dns.exception.TooBig:
        return bare_response(query, rcode, truncated=True)
    # dnspython allows 512 bytes to every message
    return wire if len(wire) <= limit else bare_response(query, rcode, truncated=True)


def _question(query: Query) -> dns.rrset.RRset:
    name = dns.name.Name((*query.labels, b""))
    return dns.rrset.RRset(name, IN, RdataType.make(query.rdtype))


def _plain(entry: Entry) -> bool:
    """Without the DO flag a referral says nothing of how the child is signed."""
    return entry.rrset.rdtype is not RdataType.DS


def _signed(entries: list[Entry], signer: Signer) -> list[dns.rrset.RRset]:
    rrsets = []
    for entry in entries:
        rrsets.append(entry.rrset)
        if entry.signed:
            rrsets.append(signer.signature(entry.rrset))
    return rrsets
