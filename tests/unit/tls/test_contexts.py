"""Keys that need no file, and contexts that remember nothing."""

from __future__ import annotations

import os
import ssl

from isoproxy.tls.contexts import chain_of, server_context, site_context
from tests.unit.tls import shaking
from tests.unit.tls.sites import NOW, party
from tests.unit.tls.world import HOST, ISSUER, ROOT


def test_a_key_is_read_from_memory_and_nothing_stays_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    context = server_context(ISSUER.leaf(HOST, NOW), [b"h2"])
    assert set(os.listdir("/proc/self/fd")) == before
    shaking.shake(shaking.client_context(ROOT), context, HOST)


def test_no_context_has_tickets() -> None:
    context = server_context(ISSUER.leaf(HOST, NOW), [])
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_authorities_are_asked_only_where_they_have_to_be() -> None:
    asking = site_context([b"h2"], asks_authorities=True)
    assert asking.verify_mode is ssl.CERT_REQUIRED
    assert asking.check_hostname
    assert site_context([], asks_authorities=False).verify_mode is ssl.CERT_NONE


def test_the_whole_chain_is_seen() -> None:
    authority = party("authority", authority=True)
    site = party(HOST, authority, hosts=(HOST,))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = site_context([], asks_authorities=False).wrap_bio(down, up, server_hostname=HOST)
    server = shaking.server_context(site.pem).wrap_bio(up, down, server_side=True)
    for side in client, server, client, server:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert chain_of(client, verified=False) == site.chain
