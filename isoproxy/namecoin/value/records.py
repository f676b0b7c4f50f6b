"""The items of one object of a `d/` value, turned into typed records.

Theory of operation
    IFA-0001 ("DNS-Compatible Records") and IFA-0002 (`tor`, `i2p`).  Each item has a
    parser for one entry; the value of an item is one entry or a list of them.  An entry
    that is wrong is left out and noted; the others stay, whatever their order.

    What a record means where it stands (what an `alias` suppresses, what a delegation
    hides) is decided in `isoproxy.namecoin.value.domain`; relative names are resolved here, with
    the position that the caller passes in.

Invariants
    Nothing raises on any JSON.  A record that comes out is well-formed: addresses
    parse, numbers fit their field, targets are host names of at most 253 bytes.
    `problems` names items and reasons, never content.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeVar

import dns.exception
import dns.name
import dns.rdata
import dns.rdatatype
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.DNAME import DNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from isoproxy.namecoin.value.dehydrated import rehydrate
from isoproxy.namecoin.value.json import Json
from isoproxy.net.host_name import is_host_name
from isoproxy.net.onion_address import onion_host

_T = TypeVar("_T")

_MAX_STRING: Final = 255
_MAX_RDATA: Final = 65535
_SMTP_PORT: Final = 25

_FORBIDDEN_OPAQUE: Final = frozenset({2, 5, 6, 39, 43, 46, 47, 48, 50, 51})
"""Types that shape a zone: NS, CNAME, SOA, DNAME, DS, RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM."""


_DOTTED_QUAD: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}\.?", re.ASCII)
_EEPSITE: Final = re.compile(r"[a-z2-7]{52,63}\.b32\.i2p", re.ASCII)


class _Wrong(ValueError):
    """One entry is wrong; the text says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where an object stands: the registered `base` and the `labels` to its left."""

    base: str
    labels: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """The object's name in DNS form, without a last dot."""
        return ".".join((*self.labels, self.base, "bit"))

    def host(self, written: Json) -> str:
        """The host name that `written` means here, without a last dot."""
        if not isinstance(written, str):
            raise _Wrong("is not a name")
        if written.endswith("."):
            host = written[:-1]
        elif written == "@" or written.endswith(".@"):
            host = ".".join(filter(None, (written[:-2], self.base, "bit")))
        else:
            host = ".".join(filter(None, (written, *self.labels[1:], self.base, "bit")))
        is_ascii, host = host.isascii(), host.lower()
        if not (is_ascii and is_host_name(host)):
            raise _Wrong("is not a host name")
        return host


@dataclass(slots=True)
class Records:
    """What one object says.

    `rdatas` maps a DNS type to its records, in the order written.
    `tor` and `i2p` hold addresses outside the DNS.  `problems` is for the owner of the
    name: what was left out and why.
    """

    rdatas: dict[RdataType, list[dns.rdata.Rdata]] = field(default_factory=dict)
    tor: list[str] = field(default_factory=list)
    i2p: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def only(self, types: frozenset[RdataType]) -> Records:
        """The same with the DNS records of all other types suppressed."""
        kept = {rdtype: rdatas for rdtype, rdatas in self.rdatas.items() if rdtype in types}
        return Records(kept, self.tor, self.i2p, self.problems)

    @property
    def is_empty(self) -> bool:
        return not (self.rdatas or self.tor or self.i2p)


def _integer(value: Json, bits: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Wrong("has something else where an integer belongs")
    if not 0 <= value < 1 << bits:
        raise _Wrong(f"has a number that does not fit {bits} bits")
    return value


def _base64(value: Json) -> bytes:
    if not isinstance(value, str):
        raise _Wrong("has something else where base64 belongs")
    try:
        decoded = base64.b64decode(value, validate=True)
    except ValueError:
        raise _Wrong("has bad base64") from None
    if base64.b64encode(decoded).decode() != value:
        raise _Wrong("has base64 that is not in canonical form")
    return decoded


def _fields(entry: Json, count: int) -> list[Json]:
    if not isinstance(entry, list) or len(entry) < count:
        raise _Wrong(f"is not a list of {count} values")
    return entry[:count]


def _wire_name(host: str) -> dns.name.Name:
    return dns.name.Name([*(label.encode() for label in host.split(".")), b""])


def _from_wire(kind: RdataType, wire: bytes) -> dns.rdata.Rdata:
    """A record from its wire form; raises _Wrong where the type is known and it is not so."""
    try:
        return dns.rdata.from_wire(IN, kind, wire, 0, len(wire))
    except (dns.exception.DNSException, ValueError):
        raise _Wrong("has data that its record type does not allow") from None


def _of_any_length(kind: RdataType, wire: bytes) -> dns.rdata.Rdata:
    """A record whose digest may have any length, for who compares it to judge (IFA-0001)."""
    try:
        return _from_wire(kind, wire)
    except _Wrong:
        return dns.rdata.GenericRdata(IN, kind, wire)


def _ip(entry: Json, _: Position) -> dns.rdata.Rdata:
    try:
        return A(IN, RdataType.A, _text(entry))
    except (dns.exception.SyntaxError, ValueError):
        raise _Wrong("is not an IPv4 address") from None


def _ip6(entry: Json, _: Position) -> dns.rdata.Rdata:
    try:
        return AAAA(IN, RdataType.AAAA, _text(entry))
    except (dns.exception.SyntaxError, ValueError):
        raise _Wrong("is not an IPv6 address") from None


def _text(entry: Json) -> str:
    if not isinstance(entry, str):
        raise _Wrong("is not a string")
    return entry


def _alias(entry: Json, position: Position) -> dns.rdata.Rdata:
    return CNAME(IN, RdataType.CNAME, _wire_name(position.host(entry)))


def _translate(entry: Json, position: Position) -> dns.rdata.Rdata:
    return DNAME(IN, RdataType.DNAME, _wire_name(position.host(entry)))


def _ns(entry: Json, position: Position) -> dns.rdata.Rdata:
    if _DOTTED_QUAD.fullmatch(_text(entry)) is not None:
        raise _Wrong("is an address where a name belongs")
    return NS(IN, RdataType.NS, _wire_name(position.host(entry)))


def _ds(entry: Json, _: Position) -> dns.rdata.Rdata:
    tag, algorithm, digest_type, encoded = _fields(entry, 4)
    numbers = (_integer(tag, 16), _integer(algorithm, 8), _integer(digest_type, 8))
    return _of_any_length(RdataType.DS, struct.pack("!HBB", *numbers) + _base64(encoded))


def _srv(entry: Json, position: Position) -> dns.rdata.Rdata:
    priority, weight, port, target = _fields(entry, 4)
    numbers = (_integer(priority, 16), _integer(weight, 16), _integer(port, 16))
    return SRV(IN, RdataType.SRV, *numbers, _wire_name(position.host(target)))


def _mx(entry: Json, position: Position) -> dns.rdata.Rdata:
    preference, host = _fields(entry, 2)
    return MX(IN, RdataType.MX, _integer(preference, 16), _wire_name(position.host(host)))


def _tls(entry: Json, position: Position) -> dns.rdata.Rdata:
    if isinstance(entry, dict):
        if entry.get("d8") is not None and entry.get("dane") is None:
            certificate = rehydrate(entry["d8"], _certificate_host(position))
            if certificate is None:
                raise _Wrong("has a dehydrated certificate that cannot be rebuilt")
            return _from_wire(RdataType.TLSA, b"\x03\x00\x00" + certificate)
        entry = entry.get("dane")
    usage, selector, matching, association = _fields(entry, 4)
    head = bytes(_integer(number, 8) for number in (usage, selector, matching))
    return _of_any_length(RdataType.TLSA, head + _base64(association))


def _certificate_host(position: Position) -> str:
    """The host of the certificate at `_443._tcp.host`: the labels with `_` left out."""
    labels = [label for label in position.labels if not label.startswith("_")]
    return ".".join((*labels, position.base, "bit"))


def _sshfp(entry: Json, _: Position) -> dns.rdata.Rdata:
    algorithm, kind, fingerprint = _fields(entry, 3)
    head = bytes((_integer(algorithm, 8), _integer(kind, 8)))
    return _from_wire(RdataType.SSHFP, head + _base64(fingerprint))


def _txt(entry: Json, _: Position) -> dns.rdata.Rdata:
    if isinstance(entry, str):
        data = entry.encode()
        strings = [data[at : at + _MAX_STRING] for at in range(0, len(data), _MAX_STRING)] or [b""]
    elif isinstance(entry, list) and entry:
        strings = [_text(part).encode() for part in entry]
        if max(map(len, strings)) > _MAX_STRING:
            raise _Wrong("has a string of more than 255 bytes")
    else:
        raise _Wrong("is not a string or a list of strings")
    if sum(map(len, strings)) + len(strings) > _MAX_RDATA:
        raise _Wrong("is longer than a record can be")
    return TXT(IN, RdataType.TXT, strings)


def _loc(entry: Json, _: Position) -> dns.rdata.Rdata:
    text = _text(entry)
    if not text.isascii() or not text.isprintable():
        raise _Wrong("is not a location in the form of RFC 1876")
    try:
        location = dns.rdata.from_text(IN, RdataType.LOC, text)
        location.to_wire()  # its numbers may be beyond the form of the wire
    except (dns.exception.DNSException, ValueError, ArithmeticError, IndexError):
        raise _Wrong("is not a location in the form of RFC 1876") from None
    return location


def _opaque(entry: Json, _: Position) -> dns.rdata.Rdata:
    number, data = _fields(entry, 2)
    rdtype = _integer(number, 16)
    kind = RdataType.make(rdtype)
    if rdtype == 0 or rdtype in _FORBIDDEN_OPAQUE or dns.rdatatype.is_metatype(kind):
        raise _Wrong("has a record type that may not be given in raw form")
    return _from_wire(kind, _base64(data))


def _onion(entry: Json, _: Position) -> str:
    host = onion_host(_text(entry))
    if host is None:
        raise _Wrong("is not the address of a version-3 onion service")
    return host


def _eepsite(entry: Json, _: Position) -> str:
    if _EEPSITE.fullmatch(_text(entry)) is None:
        raise _Wrong("is not a base32 I2P address")
    return _text(entry)


class _Shape(Enum):
    """The forms an item's value may have."""

    ONE = "one"
    MANY = "a list"
    ONE_OR_MANY = "one or a list"


_RECORD_ITEMS: Final[Mapping[str, tuple[_Shape, Callable[[Json, Position], dns.rdata.Rdata]]]] = (
    MappingProxyType(
        {
            "ip": (_Shape.ONE_OR_MANY, _ip),
            "ip6": (_Shape.ONE_OR_MANY, _ip6),
            "alias": (_Shape.ONE, _alias),
            "translate": (_Shape.ONE, _translate),
            "ns": (_Shape.ONE_OR_MANY, _ns),
            "ds": (_Shape.MANY, _ds),
            "srv": (_Shape.MANY, _srv),
            "tls": (_Shape.MANY, _tls),
            "txt": (_Shape.ONE_OR_MANY, _txt),
            "mx": (_Shape.MANY, _mx),
            "loc": (_Shape.ONE_OR_MANY, _loc),
            "sshfp": (_Shape.MANY, _sshfp),
            "o": (_Shape.MANY, _opaque),
        }
    )
)
_ADDRESS_ITEMS: Final[Mapping[str, Callable[[Json, Position], str]]] = MappingProxyType(
    {"tor": _onion, "i2p": _eepsite}
)


_WITHOUT_RECORDS: Final = (
    *("dns", "info", "email", "service", "spf", "fingerprint", "freenet", "zeronet", "nostr"),
)
ITEMS: Final = frozenset({*_RECORD_ITEMS, *_ADDRESS_ITEMS, *_WITHOUT_RECORDS})
"""All items that somebody has described, but those of structure."""


def _entries(shape: _Shape, value: Json) -> list[Json]:
    if shape is _Shape.ONE:
        return [value]
    if isinstance(value, list):
        return value
    if shape is _Shape.ONE_OR_MANY and isinstance(value, str):
        return [value]
    raise _Wrong("has neither of its forms")


def _parsed(
    item: str,
    shape: _Shape,
    parse: Callable[[Json, Position], _T],
    value: Json,
    position: Position,
    problems: list[str],
) -> Iterator[_T]:
    """The entries of one item that are right, repeated ones once; others become problems.

    Only what is right has an equal left out: to Python `true` is equal to 1.
    """
    try:
        entries = _entries(shape, value)
    except _Wrong as wrong:
        problems.append(f"{item}: the item {wrong}")
        return
    right: list[Json] = []
    for number, entry in enumerate(entries, 1):
        if entry in right:
            continue
        try:
            parsed = parse(entry, position)
        except _Wrong as wrong:
            problems.append(f"{item}: entry {number} {wrong}")
        except UnicodeEncodeError:
            problems.append(f"{item}: entry {number} holds half a character")
        else:
            right.append(entry)
            yield parsed


def read_records(items: Mapping[str, Json], position: Position) -> Records:
    """The records that the object `items`, standing at `position`, gives; never raises.

    Items that are unknown, deprecated or meant for people (`info`, `email`, `service`,
    `freenet`, ...) give nothing.
    """
    records = Records()
    for item, value in items.items():
        if value is None:
            continue
        if item in _RECORD_ITEMS:
            shape, parse = _RECORD_ITEMS[item]
            for rdata in _parsed(item, shape, parse, value, position, records.problems):
                records.rdatas.setdefault(rdata.rdtype, []).append(rdata)
        elif item in _ADDRESS_ITEMS:
            address = _ADDRESS_ITEMS[item]
            found = _parsed(item, _Shape.ONE_OR_MANY, address, value, position, records.problems)
            (records.tor if item == "tor" else records.i2p).extend(dict.fromkeys(found))
    return records


def mail_exchangers(services: Iterable[dns.rdata.Rdata]) -> Iterator[dns.rdata.Rdata]:
    """The MX records that follow from the SRV records at `_smtp._tcp` (IFA-0001, "MX")."""
    for service in services:
        if isinstance(service, SRV) and service.port == _SMTP_PORT:
            yield MX(IN, RdataType.MX, service.priority, service.target)
