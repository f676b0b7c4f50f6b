"""Namecoin's own test suite for values, case by case: what we list is what it expects.

Records are compared in their wire form.  What differs has a row in docs/namecoin-values.md.
"""

from __future__ import annotations

from typing import Final

import dns.rdata
import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.value.domain import Domain
from tests.kit.nctestsuite import Case, cases
from tests.kit.repository import ROOT
from tests.unit.namecoin.value.inquiry import drive

Record = tuple[str, str, bytes]

EXPLAINED: Final = (
    "ipv6-array-trailing-invalid",
    "import-subsubreference",
    "delegate-subsubreference",
)
"""These are no JSON: a bracket or a quotation mark is missing."""


def listed(case: Case) -> set[Record]:
    name, *_ = case.values
    domain = Domain(name.removeprefix("d/"), case.values[name])
    nodes, _ = drive(domain.zone(), case.values)
    return {
        (f"{node.owner}.", rdata.rdtype.name, rdata.to_wire() or b"")
        for node in nodes
        for rdatas in node.records.rdatas.values()
        for rdata in rdatas
    }


def expected(case: Case) -> set[Record]:
    """The records in the suite's text, in wire form; a digest may be of any length there."""
    found = set()
    for line in case.records:
        owner, _, rdtype, data = line.split(" ", 3)
        found.add((owner, rdtype, wire(rdtype, data)))
    return found


def wire(rdtype: str, data: str) -> bytes:
    if rdtype == "DS":
        tag, algorithm, kind, digest = data.split()
        head = int(tag).to_bytes(2, "big") + bytes((int(algorithm), int(kind)))
        return head + bytes.fromhex(digest)
    return dns.rdata.from_text("IN", rdtype, data).to_wire() or b""


@pytest.mark.interop
def test_every_case_is_as_expected_or_explained() -> None:
    different = []
    for case in cases():
        try:
            if listed(case) != expected(case):
                different.append(case.title)
        except NamingError as error:
            assert error.kind is ErrorKind.NAME_INVALID_VALUE
            different.append(case.title)
    assert tuple(different) == EXPLAINED


@pytest.mark.parametrize("title", EXPLAINED)
def test_what_differs_has_its_row(title: str) -> None:
    assert f"`{title}`" in (ROOT / "docs" / "namecoin-values.md").read_text()
