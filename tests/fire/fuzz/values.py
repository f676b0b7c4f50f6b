"""What the owner of a name wrote: names, JSON, records, certificates, redirections."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import dns.name
from cryptography import x509

from isoproxy.errors import NamingError, PolicyRefusal
from isoproxy.namecoin.limits import MAX_VALUE_BYTES
from isoproxy.namecoin.value.dehydrated import rehydrate
from isoproxy.namecoin.value.domain import Domain
from isoproxy.namecoin.value.json import parse_json
from isoproxy.namecoin.value.name import BitName, TopLevels
from isoproxy.namecoin.value.records import Position, read_records
from isoproxy.net.onion_address import onion_host
from isoproxy.net.target import Target
from tests.fire.fuzz.target import FuzzTarget
from tests.unit.dns.table import CHAIN
from tests.unit.namecoin.value.inquiry import drive, encode

_VALUES: Final = [encode(value) for value in CHAIN.values() if isinstance(value, dict)]


def _json(data: bytes) -> None:
    value = parse_json(data)
    assert len(data) <= MAX_VALUE_BYTES
    json.dumps(value)


def _domain(data: bytes) -> None:
    """A value that also imports itself, at a name, with its mail, and as a whole zone."""
    value = data[:MAX_VALUE_BYTES]
    domain = Domain("example", value)
    others = {"d/other": value, "dd/x": value, "d/example": value}
    for labels in ((), ("www",), ("_smtp", "_tcp"), ("a", "b")):
        with contextlib.suppress(NamingError):
            node, asked = drive(domain.at(labels, mail=True), others)
            assert len(asked) < 100
            for rdatas in node.records.rdatas.values():
                for rdata in rdatas:
                    rdata.to_wire()
            for onion in node.records.tor:
                assert onion_host(onion)
    for node in drive(Domain("example", value).zone(), others)[0]:
        dns.name.from_text(node.owner)


def _records(data: bytes) -> None:
    """Never raises, whatever JSON it is."""
    with contextlib.suppress(NamingError):
        value = parse_json(data)
        if isinstance(value, dict):
            read_records(value, Position("example", ("www",))).only(frozenset())


def _certificate(data: bytes) -> None:
    with contextlib.suppress(ValueError, RecursionError):
        item: Any = json.loads(data)
        der = rehydrate(item, "example.bit")
        if der is not None:
            x509.load_der_x509_certificate(der)  # or ValueError: the key is the owner's


def _names(data: bytes) -> None:
    target: Target | None = None
    with contextlib.suppress(PolicyRefusal):
        target = Target.parse(data, 80)
    if target is not None:
        assert target.may_be_sent_to_tor() or not target.is_ip
        TopLevels().route(target.host)
        assert Target.parse(target.host, 80) == target
    name = BitName.parse(data)
    assert BitName.parse(str(name)) == name
    assert target is None or not target.may_be_sent_to_tor() or name.onion_only


_DEHYDRATED: Final = encode([1, "MFkw", 4944096, 5049216, 10, "MEUC"])

TARGETS: Final = [
    FuzzTarget("json-value", _json, (NamingError,), _VALUES),
    FuzzTarget("domain", _domain, (NamingError,), _VALUES),
    FuzzTarget("records", _records, (), _VALUES),
    FuzzTarget("dehydrated", _certificate, (), [_DEHYDRATED]),
    FuzzTarget(
        "names",
        _names,
        (PolicyRefusal, NamingError),
        [b"example.bit", b"WWW.example.bit.", b"a.b.example.bit.onion"],
    ),
]
