"""Certificates of sites: self-signed ones, and chains under an authority of the name's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)


def name(text: str) -> x509.Name:
    """A common name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Party:
    """A certificate, its key, and those that a server sends above it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        """Its public key, as certificates have it."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def compressed_spki(self) -> bytes:
        """The same with the point compressed, as ncdns writes it (x509-compressed)."""
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
        return head + point

    @property
    def chain(self) -> list[bytes]:
        """What its server shows."""
        return [self.der, *(one.public_bytes(Encoding.DER) for one in self.above)]

    @property
    def pem(self) -> bytes:
        """What its server is configured with."""
        secret = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificates = (self.certificate, *self.above)
        return secret + b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def party(
    subject: str,
    issuer: Party | None = None,
    *,
    hosts: tuple[str, ...] = (),
    authority: bool = False,
    days: tuple[float, float] = (-1, 30),
    send_issuer: bool = True,
) -> Party:
    """A certificate of `subject`, self-signed without an `issuer`; `days` from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    above = issuer.certificate.subject if issuer else name(subject)
    begins, ends = (NOW + timedelta(days=each) for each in days)
    builder = x509.CertificateBuilder(
        above, name(subject), key.public_key(), x509.random_serial_number(), begins, ends
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    sent = (issuer.certificate, *issuer.above) if issuer and send_issuer else ()
    return Party(signed, key, sent)


def record(usage: int, selector: int, matching: int, of: bytes) -> bytes:
    """A TLSA record's data for what is selected."""
    digests = {1: hashlib.sha256, 2: hashlib.sha512}
    data = digests[matching](of).digest() if matching else of
    return bytes((usage, selector, matching)) + data
