"""What the zone `bit` says to a question: records, referrals, redirections, denials.

Theory of operation
    The zone is put together from the values of names, one at a time, as questions come.
    `answer_steps` finds what RFC 1034 §4.3.2 finds on the way down from the registered name
    to the one asked for: the first delegation on the way makes a referral with glue, the
    first `translate` a DNAME and the CNAME that follows from it; at the end stand records,
    an alias, no data, or no name.  Like `Domain`'s methods it is a generator that asks its
    driver for values.  `Apex` has the few records that belong to the zone itself.

    A redirection is one answer and the name to go on with; following is the caller's.

Invariants
    What is hidden by policy (addresses that are not public; all addresses, where only
    onion services may be used) is hidden from denials as well, so signed and unsigned
    answers agree.  So are redirections to what is not the DNS's, an onion service say, HTTPS
    and SVCB records included: a resolver would ask the whole world for it.  So are DS records
    whose digest is not as long as its type has it: to a validator they are bogus.  Only
    records of the zone are marked `signed`: neither the NS records of a delegation, nor glue,
    nor a CNAME made from a DNAME (RFC 4035 §2.2, RFC 6672).

Specification: RFC 1034 §4.3, RFC 2308 (SOA of a denial), RFC 6672 (DNAME), RFC 4592 as
far as a `*` in a value is meant, RFC 8482 (ANY), RFC 9824 (compact denial).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from types import MappingProxyType
from typing import Final, NamedTuple

import dns.exception
import dns.name
import dns.rdata
import dns.rrset
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.DNAME import DNAME
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.DS import DS
from dns.rdtypes.ANY.HINFO import HINFO
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.nsbase import NSBase
from dns.rdtypes.svcbbase import ParamKey, SVCBBase

from isoproxy.dns.query import NOERROR, NXDOMAIN, YXDOMAIN
from isoproxy.namecoin.resolve.answer import Policy, is_public
from isoproxy.namecoin.value.domain import Domain, Inquiry, Node
from isoproxy.namecoin.value.name import BitName, is_registrable
from isoproxy.net.host_name import is_label
from isoproxy.net.target import NEVER_SENT_TO_TOR

TTL: Final = 600
"""Seconds; of every record, as ncdns has it."""
NEGATIVE_TTL: Final = 60
"""Seconds that a resolver may remember an absence."""
APEX_TTL: Final = 86400

ORIGIN: Final = dns.name.Name((b"bit", b""))
_META: Final = dns.name.Name((b"x--nmc", b"bit", b""))
SERVER: Final = dns.name.Name((b"this", b"x--nmc", b"bit", b""))
"""The zone's own name server.  Names with two hyphens cannot be registered."""

_NOT_OF_THE_DNS: Final = frozenset(
    label.encode() for label in (NEVER_SENT_TO_TOR | {"onion"}) - {"bit"}
)
_ADDRESSES: Final = frozenset({RdataType.A, RdataType.AAAA})


class Entry(NamedTuple):
    """An RRset of an answer, and whether the zone's key signs it."""

    rrset: dns.rrset.RRset
    signed: bool = True


@dataclass(frozen=True, slots=True)
class Denial:
    """`owner` has records of these types alone; it does not exist if `exists` is False."""

    owner: dns.name.Name
    types: frozenset[RdataType]
    exists: bool = True


@dataclass(slots=True)
class DnsAnswer:
    """The sections of a response; `follow` is where a redirection leads.

    It is not `whole` if what stands at the end of the redirections is not known now.
    """

    rcode: int = NOERROR
    authoritative: bool = True
    answer: list[Entry] = field(default_factory=list)
    authority: list[Entry] = field(default_factory=list)
    additional: list[Entry] = field(default_factory=list)
    denial: Denial | None = None
    follow: dns.name.Name | None = None
    whole: bool = True


class Apex:
    """The records of the zone itself: `bit`, and the name of its server.

    `address` is where the server listens, the text of an IP address.
    """

    def __init__(self, address: str, dnskey: DNSKEY | None = None) -> None:
        soa = SOA(IN, RdataType.SOA, SERVER, dns.name.root, 1, 600, 600, 7200, NEGATIVE_TTL)
        own: dict[RdataType, list[dns.rdata.Rdata]] = {
            RdataType.SOA: [soa],
            RdataType.NS: [NS(IN, RdataType.NS, SERVER)],
        }
        if dnskey is not None:
            own[RdataType.DNSKEY] = [dnskey]
        server: dict[RdataType, list[dns.rdata.Rdata]] = (
            {RdataType.A: [A(IN, RdataType.A, address)]}
            if isinstance(ip_address(address), IPv4Address)
            else {RdataType.AAAA: [AAAA(IN, RdataType.AAAA, address)]}
        )
        self._soa: Final = soa
        self._names: Final = MappingProxyType({ORIGIN: own, _META: {}, SERVER: server})

    def soa(self) -> Entry:
        """The SOA record that goes with a denial."""
        return Entry(_rrset(ORIGIN, NEGATIVE_TTL, [self._soa]))

    def answer(self, name: dns.name.Name, rdtype: RdataType) -> DnsAnswer | None:
        """What the zone itself says about `name`; None if it does not speak of it."""
        if len(name.labels) > 2 and name.labels[-3].lower() != _META.labels[0]:
            return None
        if name in self._names:
            return self._records(name, rdtype, self._names[name], APEX_TTL)
        if name.is_subdomain(_META):
            return self.nothing(name)
        return None

    def nothing(self, name: dns.name.Name) -> DnsAnswer:
        """There is no such name."""
        absent = Denial(name, frozenset(), exists=False)
        return DnsAnswer(rcode=NXDOMAIN, authority=[self.soa()], denial=absent)

    def records(self, name: dns.name.Name, rdtype: RdataType, node: Node) -> DnsAnswer:
        """What `node`, where nothing is cut or redirected, says about `name`."""
        if not node.exists:
            return self.nothing(name)
        return self._records(name, rdtype, node.records.rdatas, TTL)

    def _records(
        self,
        name: dns.name.Name,
        rdtype: RdataType,
        rdatas: dict[RdataType, list[dns.rdata.Rdata]],
        ttl: int,
    ) -> DnsAnswer:
        if rdtype is RdataType.ANY and rdatas:
            minimal = HINFO(IN, RdataType.HINFO, b"RFC8482", b"")
            return DnsAnswer(answer=[Entry(_rrset(name, ttl, [minimal]))])
        if rdtype in rdatas:
            return DnsAnswer(answer=[Entry(_rrset(name, ttl, rdatas[rdtype]))])
        return DnsAnswer(authority=[self.soa()], denial=Denial(name, frozenset(rdatas)))


def bit_name(name: dns.name.Name) -> BitName | None:
    """The Namecoin name that `name`, below `bit`, is in; None if there can be none."""
    try:
        *labels, base = (label.decode("ascii").lower() for label in name.labels[:-2])
    except UnicodeDecodeError:
        return None
    if not is_registrable(base) or not all(is_label(label) or label == "*" for label in labels):
        return None
    return BitName(base, tuple(labels))


def answer_steps(
    domain: Domain,
    name: dns.name.Name,
    labels: tuple[str, ...],
    rdtype: RdataType,
    apex: Apex,
    policy: Policy,
) -> Inquiry[DnsAnswer]:
    """What `domain` says to `rdtype` at `name`, which has `labels` left of the base name."""
    node = _visible((yield from domain.at(labels, mail=True)), policy)
    rdatas = node.records.rdatas
    if node.cut is not None:
        above = _visible((yield from domain.at(labels[len(labels) - node.cut :])), policy)
        owner = dns.name.Name(name.labels[len(labels) - node.cut :])
        if RdataType.NS in above.records.rdatas:
            return (yield from _referral(domain, owner, above, policy))
        if RdataType.DNAME in above.records.rdatas:
            return _translated(name, owner, above.records.rdatas[RdataType.DNAME], rdtype)
    if RdataType.NS in rdatas and rdtype is not RdataType.DS:
        return (yield from _referral(domain, name, node, policy))
    if RdataType.NS in rdatas:
        return apex.records(name, rdtype, _at_the_cut(node))
    if RdataType.CNAME in rdatas and rdtype is not RdataType.NSEC:  # RFC 4035 §2.5
        alias = rdatas[RdataType.CNAME]
        stays = rdtype in (RdataType.CNAME, RdataType.ANY)
        return DnsAnswer(
            answer=[Entry(_rrset(name, TTL, alias))], follow=None if stays else _target(alias)
        )
    return apex.records(name, rdtype, node)


def _referral(
    domain: Domain, owner: dns.name.Name, node: Node, policy: Policy
) -> Inquiry[DnsAnswer]:
    """The delegation at `owner`: servers, proof of how it is signed, addresses."""
    rdatas = node.records.rdatas
    servers = _rrset(owner, TTL, rdatas[RdataType.NS])
    answer = DnsAnswer(authoritative=False, authority=[Entry(servers, signed=False)])
    if RdataType.DS in rdatas:
        answer.authority.append(Entry(_rrset(owner, TTL, rdatas[RdataType.DS])))
    else:
        answer.denial = Denial(owner, frozenset({RdataType.NS}))
    base = dns.name.Name(owner.labels[-3:])
    for server in servers:
        assert isinstance(server, NSBase)
        if not server.target.is_subdomain(base):
            continue
        labels = tuple(label.decode() for label in server.target.labels[:-3])
        glue = _visible((yield from domain.at(labels)), policy).records.rdatas
        answer.additional += [
            Entry(_rrset(server.target, TTL, glue[kind]), signed=False)
            for kind in sorted(_ADDRESSES & glue.keys())
        ]
    return answer


def _translated(
    name: dns.name.Name,
    owner: dns.name.Name,
    translation: list[dns.rdata.Rdata],
    rdtype: RdataType,
) -> DnsAnswer:
    """The DNAME at `owner`, and the CNAME it makes of `name` below it (RFC 6672 §2.2)."""
    answer = DnsAnswer(answer=[Entry(_rrset(owner, TTL, translation))])
    prefix = name.relativize(owner)
    try:
        target = prefix.derelativize(_target(translation))
    except dns.exception.DNSException:
        answer.rcode = YXDOMAIN
        return answer
    synthetic = CNAME(IN, RdataType.CNAME, target)
    answer.answer.append(Entry(_rrset(name, TTL, [synthetic]), signed=False))
    if rdtype is not RdataType.CNAME:
        answer.follow = target
    return answer


def _at_the_cut(node: Node) -> Node:
    """What the parent zone answers for at a delegation: how the child is signed."""
    return replace(node, records=node.records.only(frozenset({RdataType.NS, RdataType.DS})))


def _visible(node: Node, policy: Policy) -> Node:
    """`node` without the addresses that `policy` does not allow."""
    if all(
        _is_allowed(rdata, policy) for rdatas in node.records.rdatas.values() for rdata in rdatas
    ):
        return node
    shown: dict[RdataType, list[dns.rdata.Rdata]] = {}
    for kind, rdatas in node.records.rdatas.items():
        kept = [rdata for rdata in rdatas if _is_allowed(rdata, policy)]
        if kept:
            shown[kind] = kept
    return replace(node, records=replace(node.records, rdatas=shown))


def _is_allowed(rdata: dns.rdata.Rdata, policy: Policy) -> bool:
    if isinstance(rdata, CNAME | DNAME | NS | SVCBBase) and not _is_of_the_dns(rdata.target):
        return False
    if rdata.rdtype is RdataType.DS and not isinstance(rdata, DS):
        return False
    addresses = _addresses(rdata)
    if policy.only_onion:
        return not addresses
    return policy.allow_private_addresses or all(map(is_public, addresses))


def _is_of_the_dns(name: dns.name.Name) -> bool:
    """Whether a resolver may go on to `name`; other names mean nothing to those it asks."""
    if name == dns.name.root:
        return True  # of an SVCB record: its owner
    top = name.labels[-2]
    return top not in _NOT_OF_THE_DNS and name.labels[-3:-1] != (b"home", b"arpa")


def _addresses(rdata: dns.rdata.Rdata) -> list[str]:
    """The addresses that `rdata` tells a client to connect to, the hints of HTTPS included."""
    if isinstance(rdata, A | AAAA):
        return [rdata.address]
    if isinstance(rdata, SVCBBase):
        hints = [rdata.params.get(key) for key in (ParamKey.IPV4HINT, ParamKey.IPV6HINT)]
        return [address for hint in hints if hint is not None for address in hint.addresses]
    return []


def _target(redirection: list[dns.rdata.Rdata]) -> dns.name.Name:
    (rdata,) = redirection
    assert isinstance(rdata, NSBase)
    return rdata.target


def _rrset(owner: dns.name.Name, ttl: int, rdatas: list[dns.rdata.Rdata]) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(owner, ttl, rdatas)
