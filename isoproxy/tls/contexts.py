"""How TLS is spoken: to the client, as a server; to the site, as a client.

Invariants
    No session is resumed, on either side: there are no tickets, and each connection has a
    context of its own.  So nothing that one connection learned is seen in another.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from isoproxy.tls.certificates import Leaf


def server_context(leaf: Leaf, protocols: Sequence[bytes]) -> ssl.SSLContext:
    """For one client, who may speak `protocols` (ALPN) and no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    _offer(context, protocols)
    # The library reads keys from files alone; this one has no name and no disk.
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(leaf.pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context


def site_context(protocols: Sequence[bytes], *, asks_authorities: bool) -> ssl.SSLContext:
    """For one site, which is offered `protocols`.

    Its certificate is checked in the handshake only where public authorities are asked.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if asks_authorities:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _offer(context, protocols)
    return context


def chain_of(tls: ssl.SSLObject, *, verified: bool) -> list[bytes]:
    """The certificates (DER) that the server showed, its own first; or the `verified` path."""
    # public since Python 3.13, and there since 3.10
    inner = tls._sslobj  # type: ignore[attr-defined]
    found = inner.get_verified_chain() if verified else inner.get_unverified_chain()
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in found or ()]


def _offer(context: ssl.SSLContext, protocols: Sequence[bytes]) -> None:
    if protocols:
        context.set_alpn_protocols([protocol.decode("ascii") for protocol in protocols])
