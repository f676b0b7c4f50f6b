"""The certificates that browsers are shown: a root, an intermediate under it, and leaves.

Theory of operation
    The root is made once, on this machine, and imported once into a browser.  It signs
    intermediates, and nothing else; an intermediate signs a leaf for exactly one host under
    `bit`.  Whoever has the root's key could sign others, so what browsers believe it is
    limited in the root itself.

    Root and intermediate are name-constrained, critically: to DNS names under `bit`, to no
    IP address, and to a mail address that cannot be.  A constraint speaks only of its own
    kind of name: without the excluded addresses browsers accept a leaf for 1.1.1.1.

Invariants
    Nothing here signs for a host that is not under `bit`.  Keys are P-256 keys, made for one
    certificate each.  Root and intermediate are for TLS servers alone (serverAuth).

Specification: RFC 5280 §4.2.1.6 (names), §4.2.1.9 (path length), §4.2.1.10 (constraints).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isoproxy.errors import PolicyRefusal

ROOT_LIFE: Final = timedelta(days=3650)
INTERMEDIATE_LIFE: Final = timedelta(days=14)
_SKEW: Final = timedelta(hours=1)
"""By how much certificates are older than they are: clocks are set back now and then."""
_CONSTRAINTS: Final = x509.NameConstraints(
    permitted_subtrees=[x509.DNSName("bit"), x509.RFC822Name("nobody@isoproxy.invalid")],
    excluded_subtrees=[
        x509.IPAddress(ip_network("0.0.0.0/0")),
        x509.IPAddress(ip_network("::/0")),
    ],
)


@dataclass(frozen=True, slots=True, repr=False)
class Leaf:
    """What a TLS server needs: a private key, its certificate and the intermediate, in PEM."""

    pem: bytes


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate and its private key, DER and PKCS #8; two plain texts for another process."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def ends(self) -> datetime:
        """From when on it counts no longer (UTC)."""
        return x509.load_der_x509_certificate(self.certificate).not_valid_after_utc

    @classmethod
    def root(cls, now: datetime) -> Self:
        """A new root, valid from `now` on."""
        key = ec.generate_private_key(ec.SECP256R1())
        number = x509.random_serial_number()
        name = _name(f"isoproxy .bit root {number % (1 << 32):08x}")
        builder = _builder(name, name, key, now, now + ROOT_LIFE, number)
        return cls._signed(_authority(builder, path_length=1), key, key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Self:
        """What `certificate_pem` and `key_pem` gave; raises ValueError."""
        signing = load_pem_private_key(key, None)
        public = x509.load_pem_x509_certificate(certificate)
        if signing.public_key() != public.public_key():
            raise ValueError("the key of another certificate")
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        return cls(public.public_bytes(Encoding.DER), _pkcs8(signing))

    def certificate_pem(self) -> bytes:
        """The certificate as browsers import it."""
        return x509.load_der_x509_certificate(self.certificate).public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """The private key, not encrypted."""
        return self._private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def intermediate(self, now: datetime) -> Self:
        """An issuer of leaves under this root, for INTERMEDIATE_LIFE."""
        key, number = ec.generate_private_key(ec.SECP256R1()), x509.random_serial_number()
        ours = x509.load_der_x509_certificate(self.certificate)
        name = _name(f"isoproxy .bit intermediate {number % (1 << 32):08x}")
        ends = min(now + INTERMEDIATE_LIFE, ours.not_valid_after_utc)
        builder = _builder(ours.subject, name, key, now, ends, number)
        builder = builder.add_extension(_key_of(self._private()), critical=False)
        return self._signed(_authority(builder, path_length=0), key, self._private())

    def leaf(self, host: str, now: datetime) -> Leaf:
        """A certificate for exactly `host`, under this intermediate and as long as it.

        Raises PolicyRefusal for a host that is not under `bit`.
        """
        if not host.endswith(".bit"):
            raise PolicyRefusal("certificates are made for names under bit alone")
        key, number = ec.generate_private_key(ec.SECP256R1()), x509.random_serial_number()
        ours = x509.load_der_x509_certificate(self.certificate)
        builder = _builder(ours.subject, x509.Name([]), key, now, ours.not_valid_after_utc, number)
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = (
            builder.add_extension(names, critical=True)  # there is no other subject
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(_SERVER_AUTH, critical=False)
            .add_extension(_key_of(self._private()), critical=False)
        )
        signed = builder.sign(self._private(), hashes.SHA256())
        pem = signed.public_bytes(Encoding.PEM) + self.certificate_pem()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Leaf(secret + pem)

    @classmethod
    def _signed(
        cls,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
    ) -> Self:
        certificate = builder.sign(signer, hashes.SHA256())
        return cls(certificate.public_bytes(Encoding.DER), _pkcs8(key))

    def _private(self) -> ec.EllipticCurvePrivateKey:
        key = load_der_private_key(self.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key


_SERVER_AUTH: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _key_of(issuer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    ends: datetime,
    number: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), number)
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_CONSTRAINTS, critical=True)
        .add_extension(_SERVER_AUTH, critical=False)
    )
