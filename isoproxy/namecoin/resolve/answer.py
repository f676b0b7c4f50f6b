"""What a resolution says, and which answers are allowed to be one.

Theory of operation
    A name's records become one answer by policy: an onion service before an address, an
    address before an alias that leads out of Namecoin.  Of several equally good
    candidates each isolation key has its own pick, drawn with the key itself: always
    the same one under one key, any of them under different keys.

Invariants
    An address that is private, loopback, link-local, unspecified, multicast or reserved,
    in whatever disguise (mapped, translated or tunnelled IPv4), is not an answer unless
    the policy says so.  A NameAnswer is never half an answer: `target` and `type` are
    set exactly when `status` is OK, `reason` exactly when it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any, Final

import dns.rdata
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from isoproxy.errors import ErrorKind, IsoproxyError
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.backend import ABSENT_REASONS, Evidence
from isoproxy.namecoin.value.domain import Node
from isoproxy.namecoin.value.records import Records
from isoproxy.net.onion_address import onion_host
from isoproxy.net.target import Target

_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "::/8",  # unspecified, loopback, mapped and translated IPv4
            "fc00::/7",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)
"""Addresses for documentation are left out: they lead nowhere and do no harm."""


class Status(Enum):
    """How a resolution ended."""

    OK = "ok"
    ABSENT = "absent"
    """The name has no answer, and asking again soon will not give one."""
    FAILED = "failed"
    """Nothing is known; or what is known may not be used."""


class TargetType(Enum):
    """What a resolution's target is."""

    ONION = "onion"
    IP4 = "ip4"
    IP6 = "ip6"
    ALIAS = "alias"
    """A host name outside Namecoin, for an exit to resolve; only where policy allows."""


class Want(Enum):
    """What the answer is for."""

    STREAM = "stream"
    """Something to connect to: an onion service if there is one."""
    ADDRESS = "address"
    """An IP address (SOCKS RESOLVE, DNS): onion services do not count."""
    SITE = "site"
    """As STREAM, and what the name says of the certificate of its HTTPS server."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which answers the configuration allows."""

    only_onion: bool = False
    allow_clearnet_alias: bool = False
    allow_private_addresses: bool = False


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """The outcome for one name under one key.

    `target` is an onion host name, the canonical text of an IP address or a host name,
    never with a last dot.  `height`, `expires_in` (blocks) and `evidence` are those of
    the name asked for, None where it was not found; `servers` are those who answered for
    any name on the way.  `cached` tells that no backend was asked.  `problem` says for a person
    why there is no target; it holds nothing of the question.  `tlsa` is the data of the TLSA
    records for port 443, where they were wanted.
    """

    name: str
    status: Status
    target: str | None = None
    type: TargetType | None = None
    height: int | None = None
    expires_in: int | None = None
    evidence: Evidence | None = None
    servers: tuple[str, ...] = ()
    cached: bool = False
    reason: ErrorKind | None = None
    problem: str | None = None
    tlsa: tuple[bytes, ...] = ()

    @classmethod
    def failure(cls, name: str, error: IsoproxyError) -> NameAnswer:
        """A resolution that ended without an answer because of `error`."""
        absent = error.kind in ABSENT_REASONS or error.kind is ErrorKind.NAME_NO_ADDRESS
        status = Status.ABSENT if absent else Status.FAILED
        return cls(name, status, reason=error.kind, problem=str(error))

    def from_cache(self) -> NameAnswer:
        return replace(self, cached=True)

    def as_json(self) -> dict[str, Any]:
        """The object that `isoproxy resolve --json` prints."""
        return {
            "name": self.name,
            "status": self.status.value,
            "target": self.target,
            "type": self.type.value if self.type else None,
            "height": self.height,
            "expires_in": self.expires_in,
            "evidence": self.evidence.value if self.evidence else None,
            "servers": list(self.servers),
            "cached": self.cached,
            "reason": self.reason.value if self.reason else None,
        }

    def __repr__(self) -> str:
        return f"<NameAnswer {self.status.value}>"


@dataclass(frozen=True, slots=True, repr=False)
class Site:
    """Where the HTTPS server of a name is, and the data of its TLSA records (RFC 6698 §2.1)."""

    target: Target
    tlsa: tuple[bytes, ...] = ()


def pick(candidates: list[str], key: IsolationKey) -> str:
    """The candidate that `key` uses: a fixed one for each key, any of them over all keys."""
    return min(candidates, key=lambda candidate: key.derive(b"choice:" + candidate.encode()))


def onions_in_txt(records: Records) -> list[str]:
    """The v3 onion hosts among the first strings of the TXT records."""
    found = []
    for rdata in records.rdatas.get(RdataType.TXT, ()):
        if isinstance(rdata, TXT):
            host = onion_host(rdata.strings[0].decode("latin-1"))
            if host is not None:
                found.append(host)
    return list(dict.fromkeys(found))


def address_answer(
    node: Node, key: IsolationKey, policy: Policy
) -> tuple[str, TargetType] | ErrorKind | None:
    """The A or else AAAA record to use; ADDRESS_REFUSED if all are refused; None if none."""
    if node.delegated:
        return None
    refused = False
    for kind, target_type in ((RdataType.A, TargetType.IP4), (RdataType.AAAA, TargetType.IP6)):
        found = [_address(rdata) for rdata in node.records.rdatas.get(kind, ())]
        usable = [
            address for address in found if policy.allow_private_addresses or is_public(address)
        ]
        if usable:
            return pick(usable, key), target_type
        refused = refused or bool(found)
    return ErrorKind.ADDRESS_REFUSED if refused else None


def _address(rdata: dns.rdata.Rdata) -> str:
    assert isinstance(rdata, A | AAAA)
    return str(ip_address(rdata.address))


def is_public(text: str) -> bool:
    """Whether the address can only be that of another network, reachable through an exit."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if any(address in network for network in _NOT_PUBLIC_6):
        return False
    inner = [address.sixtofour, *(address.teredo or ())]
    return all(is_public(str(tunnelled)) for tunnelled in inner if tunnelled is not None)
