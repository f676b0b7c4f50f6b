"""Whether a site's certificate is the one that its name's record says.

Theory of operation
    Each TLSA record (RFC 6698 §2.1) has a usage, a selector (0: the certificate, 1: its
    public key) and a matching type (0: all of it, 1: SHA-256, 2: SHA-512).  What the usages
    ask, as RFC 7671 has it:

    3 DANE-EE   the site's certificate matches; names and dates in it say nothing, since the
                record has its own (§5.1).  A dehydrated certificate is one in full, 3 0 0
    2 DANE-TA   one of the chain matches, or the record holds the authority itself, and a
                path leads from it to the site's certificate, which is for this host (§5.2).
                A bare public key (2 1 0) is the name's own authority as ncdns and Encaya
                write it, whose certificate no site sends (§5.2.3)
    1 PKIX-EE   a public authority vouches for the site, and its certificate matches
    0 PKIX-TA   a public authority vouches for the site, and one above it matches

    Of 0 and 1 the path is found by the TLS library, in the handshake, which then asks for
    it (`asks_authorities`).  That is so where no record has usage 2 or 3; where one has, 0
    and 1 are passed over, because no public authority may vouch for names under `bit`.

Invariants
    What cannot be used matches nothing; where no record can be used, nothing is right.  A
    path has at most 8 certificates above the site's, and each is valid today.

Specification: RFC 6698 §2; RFC 7671 §5; RFC 5280 §6, by the library's own verification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

MAX_CHAIN: Final = 10
"""Certificates of a site's that are looked at."""
_PKIX_TA, _PKIX_EE, _DANE_TA, _DANE_EE = range(4)
_CERTIFICATE, _PUBLIC_KEY = 0, 1
_ALL: Final = 0
_DIGESTS: Final = {1: hashlib.sha256, 2: hashlib.sha512}
_AUTHORITY: Final = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, None
)
_SITE: Final = ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)
_SIGNING_KEYS: Final = (
    *(rsa.RSAPublicKey, ec.EllipticCurvePublicKey, dsa.DSAPublicKey),
    *(ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
)


@dataclass(frozen=True, slots=True, repr=False)
class _Association:
    """One TLSA record that can be used."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def matches(self, certificate: x509.Certificate) -> bool:
        if self.selector == _CERTIFICATE:
            selected = certificate.public_bytes(Encoding.DER)
        else:
            selected = certificate.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
        if self.matching == _ALL:
            return selected == self.data
        return _DIGESTS[self.matching](selected).digest() == self.data


class Associations:
    """What a name says of its site's certificate: `records` are TLSA records' data."""

    def __init__(self, records: Iterable[bytes]) -> None:
        usable = list(filter(None, map(_read, records)))
        dane = [one for one in usable if one.usage in (_DANE_TA, _DANE_EE)]
        self._used = dane or usable
        self.asks_authorities: Final = bool(usable) and not dane
        """Whether public authorities have to vouch for the site in its handshake."""

    def __bool__(self) -> bool:
        """Whether there is a record that can be used."""
        return bool(self._used)

    def accept(self, chain: Sequence[bytes], host: str, now: datetime) -> bool:
        """Whether the site that showed `chain` (DER, its own first) is the right one for `host`.

        Where authorities are asked, `chain` is the path that they vouched for.
        """
        try:
            certificates = [x509.load_der_x509_certificate(der) for der in chain[:MAX_CHAIN]]
            return bool(certificates) and any(
                _is_right(record, certificates, host, now) for record in self._used
            )
        except (ValueError, UnsupportedAlgorithm):  # of what the site sent
            return False


def _read(record: bytes) -> _Association | None:
    """A record, its public key in the form that certificates have it; None if of no use."""
    if len(record) < 4:
        return None
    usage, selector, matching, data = *record[:3], record[3:]
    if usage > _DANE_EE or selector > _PUBLIC_KEY or (matching and matching not in _DIGESTS):
        return None
    if selector == _PUBLIC_KEY and matching == _ALL:
        try:  # the chain may have it with its point compressed, to save space
            data = load_der_public_key(data).public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
        except (ValueError, UnsupportedAlgorithm):
            return None
    return _Association(usage, selector, matching, data)


def _is_right(
    record: _Association, chain: Sequence[x509.Certificate], host: str, now: datetime
) -> bool:
    site, *above = chain
    if record.usage in (_DANE_EE, _PKIX_EE):
        return record.matches(site)
    if record.usage == _PKIX_TA:
        return any(map(record.matches, above))
    anchors = [one for one in above if record.matches(one)]
    anchors += (one for one in _anchors_in(record, chain, now) if one != site)
    return bool(anchors) and _leads_to(anchors, site, above, host, now)


def _anchors_in(
    record: _Association, chain: Sequence[x509.Certificate], now: datetime
) -> Iterator[x509.Certificate]:
    """The authority that a record holds itself, if it does.

    A bare key is an authority of whatever name: those that the chain names as issuers.
    """
    if record.matching != _ALL:
        return
    if record.selector == _CERTIFICATE:
        yield x509.load_der_x509_certificate(record.data)
        return
    key = load_der_public_key(record.data)
    if not isinstance(key, _SIGNING_KEYS):
        return
    nobody = ec.generate_private_key(ec.SECP256R1())  # an anchor's own signature says nothing
    for issuer in {one.issuer for one in chain}:
        yield (
            x509.CertificateBuilder(issuer, issuer, key, 1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(nobody, hashes.SHA256())
        )


def _leads_to(
    anchors: list[x509.Certificate],
    site: x509.Certificate,
    above: list[x509.Certificate],
    host: str,
    now: datetime,
) -> bool:
    """Whether a path goes from one of `anchors` to the certificate of `site`, for `host`."""
    verifier = (
        PolicyBuilder()
        .store(Store(anchors))
        .time(now)
        .extension_policies(ca_policy=_AUTHORITY, ee_policy=_SITE)
        .build_server_verifier(x509.DNSName(host))
    )
    try:
        verifier.verify(site, above)
    except VerificationError:
        return False
    return True
