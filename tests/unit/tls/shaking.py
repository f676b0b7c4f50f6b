"""TLS handshakes in memory, of Python's own library with a server of ours."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from isoproxy.tls.certificates import Issuer


def client_context(root: Issuer | None = None) -> ssl.SSLContext:
    """A client that believes `root` alone, or anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if root is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=root.certificate_pem().decode())
    return context


def server_context(pem: bytes) -> ssl.SSLContext:
    """A server with the key and certificates of `pem`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def shake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """A whole handshake; raises what the client finds wrong."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname=host)
    theirs = server.wrap_bio(up, down, server_side=True)
    waiting = [ours, theirs]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)


def with_names(issuer: Issuer, names: list[x509.GeneralName], now: datetime) -> bytes:
    """A leaf for `names`, whatever they are, as a thief of the issuer's key would sign it."""
    signer = load_der_private_key(issuer.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    ours = x509.load_der_x509_certificate(issuer.certificate)
    ends = ours.not_valid_after_utc
    builder = x509.CertificateBuilder(
        ours.subject, x509.Name([]), key.public_key(), 7, now, ends
    ).add_extension(x509.SubjectAlternativeName(names), critical=True)
    leaf = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + leaf + issuer.certificate_pem()


def name_of(host: str) -> x509.GeneralName:
    """`host` as a certificate has it."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
