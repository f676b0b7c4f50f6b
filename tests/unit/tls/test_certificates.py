"""The root's constraints, and that browsers' own library holds leaves to them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from isoproxy.errors import PolicyRefusal
from isoproxy.tls.certificates import INTERMEDIATE_LIFE, Issuer
from tests.unit.tls.shaking import client_context, name_of, server_context, shake, with_names

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def root() -> Issuer:
    return Issuer.root(NOW)


@pytest.fixture(scope="module")
def intermediate(root: Issuer) -> Issuer:
    return root.intermediate(NOW)


def test_root_and_intermediate_are_constrained_critically(
    root: Issuer, intermediate: Issuer
) -> None:
    for issuer, path in (root, 1), (intermediate, 0):
        certificate = x509.load_der_x509_certificate(issuer.certificate)
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert found.critical
        assert x509.DNSName("bit") in (found.value.permitted_subtrees or ())
        assert {str(one.value) for one in found.value.excluded_subtrees or ()} == {
            "0.0.0.0/0",
            "::/0",
        }
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert authority.value.path_length == path
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert list(usage.value) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_a_client_that_has_the_root_accepts_a_leaf_of_its_name_and_of_no_other(
    root: Issuer, intermediate: Issuer
) -> None:
    server = server_context(intermediate.leaf("name.bit", NOW).pem)
    shake(client_context(root), server, "name.bit")
    for other in ("other.bit", "www.name.bit"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            shake(client_context(root), server, other)


@pytest.mark.parametrize("host", ["example.org", "x.orbit", "1.1.1.1", "::1"])
def test_a_leaf_outside_bit_is_refused_although_its_signature_is_right(
    root: Issuer, intermediate: Issuer, host: str
) -> None:
    server = server_context(with_names(intermediate, [name_of(host)], NOW))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"subtree"):
        shake(client_context(root), server, host)


@pytest.mark.parametrize("host", ["example.org", "bit", "orbit", "name.bit.onion", "1.1.1.1"])
def test_nothing_is_signed_for_a_host_that_is_not_under_bit(
    intermediate: Issuer, host: str
) -> None:
    with pytest.raises(PolicyRefusal):
        intermediate.leaf(host, NOW)


def test_an_intermediate_ends_with_its_root_and_no_leaf_outlives_it(root: Issuer) -> None:
    assert root.intermediate(NOW).ends == NOW + INTERMEDIATE_LIFE
    late = root.ends - timedelta(days=1)
    last = root.intermediate(late)
    assert last.ends == root.ends
    leaf = x509.load_pem_x509_certificates(last.leaf("name.bit", late).pem)[0]
    assert leaf.not_valid_after_utc == root.ends


def test_every_certificate_has_a_key_of_its_own(intermediate: Issuer) -> None:
    leaves = [intermediate.leaf("name.bit", NOW).pem for _ in range(2)]
    one, other = (x509.load_pem_x509_certificates(pem)[0].public_key() for pem in leaves)
    assert one != other


def test_an_issuer_survives_being_written(root: Issuer) -> None:
    assert Issuer.from_pem(root.certificate_pem(), root.key_pem()) == root
    with pytest.raises(ValueError, match="another certificate"):
        Issuer.from_pem(root.certificate_pem(), Issuer.root(NOW).key_pem())
    assert root.key.hex() not in repr(root)
    assert repr(root.key) not in repr(root)
