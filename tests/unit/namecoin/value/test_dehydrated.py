"""A dehydrated certificate comes back byte for byte: its own signature verifies."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.namecoin.value.dehydrated import rehydrate

HOST = "www.example.bit"
START, END = 4944096, 5154336


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def dehydrate(key: Any, number: int, start: int, end: int, sign: Any) -> list[Any]:
    """What an owner publishes; `sign` signs the part that rehydration gives."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    draft = rehydrate([1, b64(public), start, end, number, ""], HOST)
    assert draft is not None
    signed = x509.load_der_x509_certificate(draft).tbs_certificate_bytes
    return [1, b64(public), start, end, number, b64(sign(signed))]


def load(item: list[Any]) -> x509.Certificate:
    der = rehydrate(item, HOST)
    assert der is not None
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.public_bytes(Encoding.DER) == der
    certificate.verify_directly_issued_by(certificate)
    return certificate


def test_an_elliptic_curve_certificate_with_all_its_fields() -> None:
    key = ec.derive_private_key(7, ec.SECP256R1())
    item = dehydrate(key, 10, START, END, lambda data: key.sign(data, ec.ECDSA(SHA256())))
    certificate = load(item)
    assert certificate.version is x509.Version.v3
    assert certificate.subject == certificate.issuer
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    (serial,) = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert (common.value, serial.value) == (HOST, "Namecoin TLS Certificate")
    assert certificate.not_valid_before_utc.isoformat() == "2017-01-01T00:00:00+00:00"
    assert certificate.not_valid_after_utc.isoformat() == "2019-01-01T00:00:00+00:00"
    assert 0 < certificate.serial_number < 1 << 152
    usage, purpose, basic, names = certificate.extensions
    assert isinstance(usage.value, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert isinstance(purpose.value, x509.ExtendedKeyUsage)
    assert list(purpose.value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert isinstance(basic.value, x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    assert isinstance(names.value, x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [HOST]


def test_other_algorithms() -> None:
    p384 = ec.derive_private_key(7, ec.SECP384R1())
    load(dehydrate(p384, 11, START, END, lambda data: p384.sign(data, ec.ECDSA(SHA384()))))
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    load(dehydrate(ed, 16, START, END, ed.sign))
    big = rsa.generate_private_key(65537, 2048)
    sign = lambda data: big.sign(data, padding.PKCS1v15(), SHA256())  # noqa: E731
    load(dehydrate(big, 4, START, END, sign))


@pytest.mark.parametrize(("end", "year"), [(8_415_359, 2049), (8_415_360, 2050)])
def test_times_beyond_2049_take_their_other_form(end: int, year: int) -> None:
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    assert load(dehydrate(ed, 16, START, end, ed.sign)).not_valid_after_utc.year == year


def test_the_certificate_is_bound_to_its_host() -> None:
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    item = dehydrate(ed, 16, START, END, ed.sign)
    other = rehydrate(item, "other.bit")
    assert other is not None
    certificate = x509.load_der_x509_certificate(other)
    assert certificate.serial_number != load(item).serial_number
    assert rehydrate(item, "*.example.bit") is None


@pytest.mark.parametrize(
    "item",
    [
        None,
        5,
        {},
        [],
        [1],
        [2, "AAAA", 0, 1, 10, "AAAA"],
        [1, "AAAA", 0, 1, 10],
        [1, "AAA", 0, 1, 10, "AAAA"],
        [1, "AAAA", 0, 1, 10, "!"],
        [1, "AAAA", 0, 1, 99, "AAAA"],
        [1, "AAAA", -1, 1, 10, "AAAA"],
        [1, "AAAA", 0, 10**30, 10, "AAAA"],
        [1, 5, 0, 1, 10, "AAAA"],
        [1, "AAAA", 0.5, 1, 10, "AAAA"],
        [1, "\u00e9", 0, 1, 10, "AAAA"],
    ],
)
def test_what_cannot_be_rebuilt_is_none(item: Any) -> None:
    assert rehydrate(item, HOST) is None


@given(st.lists(st.integers() | st.text() | st.none() | st.floats(), max_size=8))
def test_no_list_breaks_it(item: list[Any]) -> None:
    found = rehydrate([1, "AAAA", *item], HOST)
    assert found is None or found[0] == 0x30
