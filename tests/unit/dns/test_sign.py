"""Signatures and denials, checked by dnspython's validator for the whole test chain."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import dns.dnssec
import dns.message
import dns.name
import dns.node
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.rrset
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.NSEC import NSEC

from isoproxy.dns.answer import ORIGIN, Denial
from isoproxy.dns.sign import ZoneKey, nsec
from isoproxy.errors import ConfigError, OperationError
from tests.unit.dns.kit import KEY, NOW, lines, rcode, world
from tests.unit.dns.table import (
    ABSENT,
    RECORDS,
    REDIRECTED,
    REFERRED,
    TRANSLATING,
    TYPES,
)

KEYS: dict[dns.name.Name, dns.node.Node | dns.rdataset.Rdataset] = {
    ORIGIN: dns.rdataset.from_rdata(600, KEY.dnskey)
}
NXNAME = RdataType.make(128)


def validated(section: list[dns.rrset.RRset]) -> list[dns.rrset.RRset]:
    """The RRsets of `section` that a signature of the zone covers; a wrong one raises."""
    signed = []
    for rrset in section:
        if rrset.rdtype == RdataType.RRSIG:
            continue
        signatures = [
            other
            for other in section
            if other.rdtype == RdataType.RRSIG
            and other.name == rrset.name
            and other.covers == rrset.rdtype
        ]
        if signatures:
            dns.dnssec.validate(rrset, signatures[0], KEYS, now=NOW)
            signed.append(rrset)
    return signed


def proof(response: dns.message.Message) -> tuple[dns.rrset.RRset, NSEC, set[RdataType]]:
    (rrset,) = [one for one in validated(response.authority) if one.rdtype == RdataType.NSEC]
    (record,) = rrset
    assert isinstance(record, NSEC)
    types = {
        RdataType.make(window * 256 + at * 8 + bit)
        for window, bitmap in record.windows
        for at, byte in enumerate(bitmap)
        for bit in range(8)
        if byte & (0x80 >> bit)
    }
    return rrset, record, types


def check_proof(response: dns.message.Message, owner: str, types: set[str]) -> None:
    """The one NSEC record is at `owner`, says `types`, and speaks of no other name."""
    rrset, record, said = proof(response)
    name = dns.name.from_text(owner)
    assert rrset.name == name
    assert said == {RdataType.from_text(one) for one in types} | {RdataType.NSEC, RdataType.RRSIG}
    assert record.next == dns.name.Name((b"\0", *name.labels))


@pytest.mark.parametrize("name", [*RECORDS, *TRANSLATING])
async def test_records_are_signed_and_their_absence_proved(name: str) -> None:
    here = world(signed=True)
    records = {**RECORDS, **TRANSLATING}[name]
    own = {*records, "DNSKEY"} if name == "bit." else set(records)
    for rdtype in TYPES:
        response = await here.ask(name, rdtype, dnssec=True)
        assert rcode(response) == "NOERROR"
        if rdtype in own:
            (signed,) = validated(response.answer)
            assert dns.rdatatype.to_text(signed.rdtype) == rdtype
        else:
            check_proof(response, name, own)
            assert [one.rdtype for one in validated(response.authority)] == [
                RdataType.SOA,
                RdataType.NSEC,
            ]


@pytest.mark.parametrize("name", ABSENT)
async def test_absence_is_proved_with_noerror(name: str) -> None:
    here = world(signed=True)
    response = await here.ask(name, "A", dnssec=True)
    assert rcode(response) == "NOERROR"
    check_proof(response, name, {"TYPE128"})
    assert rcode(await here.ask(name, "A")) == "NXDOMAIN"
    understood = await here.ask(name, "A", dnssec=True, ednsflags=0x4000)
    assert rcode(understood) == "NXDOMAIN"
    check_proof(understood, name, {"TYPE128"})


@pytest.mark.parametrize("name", REDIRECTED)
async def test_redirections_are_signed_but_for_what_dname_makes(name: str) -> None:
    response = await world(signed=True).ask(name, "A", dnssec=True)
    made = {"mail.trans.bit. CNAME mail.plain.bit."}
    every = set(lines(response.answer))
    assert set(lines(validated(response.answer))) == every - made


@pytest.mark.parametrize("name", REFERRED)
async def test_referrals_prove_how_the_child_is_signed(name: str) -> None:
    response = await world(signed=True).ask(name, "A", dnssec=True)
    referral = REFERRED[name]
    signed = {one.rdtype for one in validated(response.authority)}
    if referral.ds is not None:
        assert signed == {RdataType.DS}
    else:
        assert signed == {RdataType.NSEC}
        check_proof(response, referral.cut, {"NS"})
    assert validated(response.additional) == []


@pytest.mark.parametrize("name", ["nowhere.bit", "plain.bit", "deleg.bit", "down.bit"])
async def test_who_understands_compact_denial_hears_that_we_do(name: str) -> None:
    here = world(signed=True)
    for flags in (0, 0x4000):
        response = await here.ask(name, "A", dnssec=True, ednsflags=flags)
        assert response.ednsflags & 0x4000 == flags


async def test_the_mark_of_a_denial_is_nothing_to_ask_for() -> None:
    for name in ("plain.bit", "nowhere.bit"):
        assert rcode(await world(signed=True).ask(name, "TYPE128")) == "FORMERR"


async def test_an_explicit_question_for_the_proof_gets_it_as_the_answer() -> None:
    response = await world(signed=True).ask("mail.plain.bit", "NSEC", dnssec=True)
    (rrset,) = validated(response.answer)
    assert rrset.rdtype == RdataType.NSEC
    assert response.authority == []


@pytest.mark.parametrize(
    ("name", "owner"), [("alias.bit", "alias.bit."), ("mail.trans.bit", "mail.plain.bit.")]
)
async def test_the_proof_is_asked_for_at_and_behind_redirections(name: str, owner: str) -> None:
    response = await world(signed=True).ask(name, "NSEC", dnssec=True)
    rrset = validated(response.answer)[-1]
    assert (rrset.name.to_text(), rrset.rdtype) == (owner, RdataType.NSEC)
    assert response.authority == []


async def test_nothing_is_signed_unless_asked() -> None:
    here = world(signed=True)
    for name, rdtype in (("plain.bit", "A"), ("nowhere.bit", "A"), ("deleg.bit", "A")):
        response = await here.ask(name, rdtype)
        every = (*response.answer, *response.authority, *response.additional)
        assert not {RdataType.RRSIG, RdataType.NSEC, RdataType.DS} & {one.rdtype for one in every}


async def test_signatures_tell_the_hour_and_no_more() -> None:
    moments = iter((NOW, NOW + 10.0, NOW + 1700.0))
    here = world(signed=True, clock=lambda: next(moments))
    first = await here.ask("mail.plain.bit", "A", dnssec=True)
    second = await here.ask("mail.plain.bit", "A", dnssec=True)
    times = [(one[0].inception, one[0].expiration) for one in (first.answer[1], second.answer[1])]
    assert times[0] == times[1]
    inception, expiration = times[0]
    assert inception <= NOW - 1800
    assert expiration >= NOW + 86400 - 3600
    assert inception % 3600 == expiration % 3600 == 0


@pytest.mark.parametrize("letter", ["a", "z", "A", "Z"])
def test_the_proof_for_the_longest_names_is_still_a_name(letter: str) -> None:
    longest = dns.name.from_text(".".join([letter * 63] * 3 + [letter * 57, "bit"]))
    assert sum(len(label) + 1 for label in longest.labels) == 255
    (record,) = nsec(Denial(longest, frozenset(), exists=False))
    assert isinstance(record, NSEC)
    assert record.next.canonicalize() > longest.canonicalize()
    assert sum(len(label) + 1 for label in record.next.labels) <= 255


def test_key_files_are_private_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "dns.key"
    key = ZoneKey.generate()
    key.store(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ZoneKey.load(path).dnskey == key.dnskey
    with pytest.raises(OperationError, match="exists already"):
        ZoneKey.generate().store(path)
    assert ZoneKey.load(path).dnskey == key.dnskey
    assert [one.name for one in tmp_path.iterdir()] == ["dns.key"]
    with pytest.raises(OperationError, match="No such file"):
        key.store(tmp_path / "missing" / "dns.key")


def test_a_key_of_another_user_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where root made it for a service that runs as another user."""
    path = tmp_path / "dns.key"
    KEY.store(path)

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="chown") as caught:
        ZoneKey.load(path)
    assert "keygen" not in str(caught.value)  # another key would be another trust anchor


def test_key_files_that_will_not_do(tmp_path: Path) -> None:
    path = tmp_path / "dns.key"
    with pytest.raises(ConfigError, match="keygen"):
        ZoneKey.load(path)
    KEY.store(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        ZoneKey.load(path)
    others: list[ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    contents = [
        other.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for other in others
    ]
    for content in (b"", b"not a key", *contents):
        path.unlink()
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="P-256"):
            ZoneKey.load(path)


@pytest.mark.timeout(5)
def test_a_key_file_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dns.key", 0o600)
    with pytest.raises(ConfigError, match="must be a file"):
        ZoneKey.load(tmp_path / "dns.key")


def test_the_trust_anchor_is_the_key_and_its_digest() -> None:
    key_line, ds_line = KEY.anchor().splitlines()
    key = dns.rdata.from_text(IN, RdataType.DNSKEY, key_line.partition(" DNSKEY ")[2])
    assert key == KEY.dnskey
    ds = dns.rdata.from_text(IN, RdataType.DS, ds_line.partition(" DS ")[2])
    assert ds == dns.dnssec.make_ds("bit.", KEY.dnskey, "SHA256")
    assert key_line.startswith("bit. IN DNSKEY 257 3 13 ")
