"""What a client of a listener with `tls` says first, and what a name says of its certificate."""

from __future__ import annotations

from functools import cache
from typing import Final

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.tls.client_hello import ClientHello, ClientHelloReader
from isoproxy.tls.tlsa import Associations
from tests.fire.fuzz.target import FuzzTarget, pieces
from tests.unit.tls.hellos import extension, message, real_hello, records, server_name, vector
from tests.unit.tls.sites import NOW, Party, party, record


def _client_hello(data: bytes) -> None:
    """Byte 0 says how large the pieces are, in which the bytes come the second time."""
    whole = ClientHelloReader()
    found = whole.receive(data[1:])
    cut, seen = ClientHelloReader(), None
    for piece in pieces(data):
        if (seen := cut.receive(piece)) is not None:
            break
    assert seen == found
    assert bytes(whole.received).startswith(cut.received)
    if found is None:
        return
    assert isinstance(found, ClientHello)
    assert found.server_name is None or found.server_name.isascii()


def _hellos() -> list[bytes]:
    protocols = extension(16, vector(2, vector(1, b"h2") + vector(1, b"http/1.1")))
    whole = message(server_name(b"name.bit"), protocols)
    return [
        b"\x00" + records(whole, 7),
        b"\x03" + records(whole),
        b"\xff" + real_hello("name.bit", ("h2", "http/1.1")),
        b"\x10" + real_hello(None),
    ]


@cache
def _site() -> Party:
    return party("name.bit", party("authority", authority=True), hosts=("name.bit",))


def _associations(data: bytes) -> None:
    """Bytes 0 and 1 are the length of a record; the rest is a certificate that is shown."""
    size = 2 + int.from_bytes(data[:2])
    said, site = Associations([data[2:size]]), _site()
    said.accept([data[size:], *site.chain], "name.bit", NOW)
    if said.accept(site.chain, "name.bit", NOW):  # what is right holds a digest, or all of it
        assert any(len(data[5:size]) in (32, 64, len(each)) for each in _selected(site))


def _selected(site: Party) -> list[bytes]:
    spki = bytes.fromhex("00") * len(site.spki)
    return [*site.chain, spki, bytes(len(site.compressed_spki))]


def _shown() -> list[bytes]:
    site, seeds = _site(), []
    for usage in range(4):
        for of, selector in (site.der, 0), (site.chain[1], 0), (site.spki, 1):
            for matching in range(3):
                said = record(usage, selector, matching, of)
                seeds.append(len(said).to_bytes(2) + said + site.der)
    return seeds


TARGETS: Final = [
    FuzzTarget("tls-client-hello", _client_hello, (RemoteProtocolError, LimitExceeded), _hellos()),
    FuzzTarget("tls-tlsa", _associations, (), _shown()),
]
