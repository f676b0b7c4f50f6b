"""A client, us and a site in one process: who is carried, who is refused, and what leaves."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from cryptography import x509

from isoproxy.errors import ErrorKind
from isoproxy.socks import encode_reply
from isoproxy.tls.certificates import Issuer
from isoproxy.tls.outcome import TlsOutcome, alert
from tests.kit.socks_port import refusing
from tests.kit.waiting import until
from tests.unit.tls.hellos import real_hello
from tests.unit.tls.shaking import client_context
from tests.unit.tls.sites import NOW, Party, party, record
from tests.unit.tls.world import (
    HOST,
    ISSUER,
    ONION,
    ROOT,
    OneSite,
    Refused,
    by_port,
    echoing,
    https_world,
)

PLACE = "192.0.2.7"


@pytest.fixture(scope="module")
def site() -> Party:
    return party("name.bit", hosts=(HOST,))


@pytest.fixture(scope="module")
def said(site: Party) -> bytes:
    return record(3, 1, 1, site.spki)


async def test_a_site_with_the_right_certificate_is_carried(site: Party, said: bytes) -> None:
    async with https_world(OneSite(PLACE, said), echoing(site, ["h2", "http/1.1"])) as world:
        heard = await world.talk(protocols=["h2", "http/1.1"])
        assert (heard.echo, heard.protocol, heard.tls) == (b"hello", "h2", "TLSv1.3")
        names = x509.load_der_x509_certificate(heard.certificate).extensions
        listed = names.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(listed) == [x509.DNSName(HOST)]
        assert world.dials == [(PLACE, 443)]
        await until(lambda: world.outcomes == {TlsOutcome.RECORD: 1})


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [
        (["h2", "http/1.1"], ["http/1.1"], "http/1.1"),
        (["http/1.1"], ["h2", "http/1.1"], "http/1.1"),
        (["h2", "http/1.1"], [], None),
        ([], ["h2"], None),
        (["h3", "smtp"], ["smtp"], None),
    ],
)
async def test_the_sites_choice_of_a_protocol_is_the_one_that_is_offered(
    site: Party, said: bytes, offered: list[str], spoken: list[str], chosen: str | None
) -> None:
    async with https_world(OneSite(PLACE, said), echoing(site, spoken)) as world:
        assert (await world.talk(protocols=offered)).protocol == chosen


async def test_the_certificate_is_signed_for_nobody_before_the_site_is_right(said: bytes) -> None:
    """A site with another certificate: the client gets an alert, and no byte of it leaves."""
    impostor = party("name.bit", hosts=(HOST,))
    async with https_world(OneSite(PLACE, said), echoing(impostor)) as world:
        with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
            await world.talk()
        assert world.outcomes == {TlsOutcome.WRONG_CERTIFICATE: 1}
        assert await world.raw(real_hello(HOST)) == alert(TlsOutcome.WRONG_CERTIFICATE)


@pytest.mark.parametrize("asked", ["other.bit", "www.name.bit", None])
async def test_a_client_that_asks_for_another_server_is_refused(
    site: Party, said: bytes, asked: str | None
) -> None:
    async with https_world(OneSite(PLACE, said), echoing(site)) as world:
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await world.talk(server_name=asked)
        assert world.outcomes == {TlsOutcome.SERVER_NAME: 1}


async def test_a_name_that_says_nothing_of_a_certificate_is_refused_and_not_dialled() -> None:
    async with https_world(OneSite(PLACE), echoing(None)) as world:
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await world.talk()
        assert world.outcomes == {TlsOutcome.NO_RECORD: 1}
        assert world.dials == []


async def test_records_that_cannot_be_used_are_no_leave(site: Party) -> None:
    for place in PLACE, ONION:
        async with https_world(OneSite(place, b"\x09\x09\x09x"), echoing(site)) as world:
            with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
                await world.talk()
            assert world.outcomes == {TlsOutcome.UNUSABLE_RECORD: 1}


async def test_where_the_record_asks_for_public_authorities_one_has_to_vouch(site: Party) -> None:
    async with https_world(OneSite(PLACE, record(1, 0, 1, site.der)), echoing(site)) as world:
        with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
            await world.talk()
        assert world.outcomes == {TlsOutcome.NO_PUBLIC_AUTHORITY: 1}


async def test_a_public_authority_that_vouches_is_enough_with_the_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    authority = party("public", authority=True)
    site = party("name.bit", authority, hosts=(HOST,))
    load = ssl.SSLContext.load_default_certs

    def with_ours(context: ssl.SSLContext, *args: object) -> None:
        load(context)
        context.load_verify_locations(cadata=authority.der)

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", with_ours)
    for usage, of in (1, site.der), (0, authority.der):
        async with https_world(OneSite(PLACE, record(usage, 0, 1, of)), echoing(site)) as world:
            assert (await world.talk()).echo == b"hello"
    wrong = record(1, 0, 1, authority.der)
    async with https_world(OneSite(PLACE, wrong), echoing(site)) as world:
        with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
            await world.talk()
        assert world.outcomes == {TlsOutcome.WRONG_CERTIFICATE: 1}


async def test_an_onion_service_with_tls_needs_no_record(site: Party) -> None:
    async with https_world(OneSite(ONION), echoing(site, ["h2"])) as world:
        heard = await world.talk(protocols=["h2", "http/1.1"])
        assert (heard.echo, heard.protocol) == (b"hello", "h2")
        assert world.dials == [(ONION, 443)]


@pytest.mark.parametrize("how", ["refused", "ended at once"])
async def test_an_onion_service_without_tls_is_spoken_to_as_it_is(how: str) -> None:
    closed = refusing(encode_reply(5 if how == "refused" else 0))
    async with https_world(OneSite(ONION), by_port({443: closed, 80: echoing(None)})) as world:
        heard = await world.talk(protocols=["h2", "http/1.1"])
        assert (heard.echo, heard.protocol) == (b"hello", "http/1.1")
        assert world.dials == [(ONION, 443), (ONION, 80)]
        assert len({(one.username, one.password) for one in world.port.requests}) == 1


async def test_an_exit_is_never_spoken_to_as_it_is(said: bytes) -> None:
    """Where TLS fails with a site behind an exit nothing else is dialled, and nothing said."""
    for answer in 0, 5:
        async with https_world(OneSite(PLACE, said), refusing(encode_reply(answer))) as world:
            if answer:
                with pytest.raises(Refused):
                    await world.talk()
            else:
                with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
                    await world.talk()
            assert world.dials == [(PLACE, 443)]


async def test_an_onion_service_whose_name_wants_a_certificate_has_to_show_it(
    site: Party, said: bytes
) -> None:
    plain = by_port({443: refusing(encode_reply(5)), 80: echoing(None)})
    async with https_world(OneSite(ONION, said), plain) as world:
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await world.talk()
    async with https_world(OneSite(ONION, said), echoing(party("x"))) as world:
        with pytest.raises(ssl.SSLError, match="ACCESS_DENIED"):
            await world.talk()
    async with https_world(OneSite(ONION, said), echoing(site)) as world:
        assert (await world.talk()).echo == b"hello"


async def test_another_onion_service_that_is_away_says_so_in_socks() -> None:
    async with https_world(OneSite(ONION), refusing(encode_reply(0xF0))) as world:
        with pytest.raises(Refused):
            await world.streams()
        assert world.front.counters.refusals == {ErrorKind.ONION_NOT_FOUND: 1}
        assert world.dials == [(ONION, 443)]


async def test_a_client_that_speaks_no_tls_is_ended_and_nothing_is_sent_on(said: bytes) -> None:
    async with https_world(OneSite(PLACE, said), echoing(None)) as world:
        assert await world.raw(b"GET / HTTP/1.1\r\nHost: name.bit\r\n\r\n") == b""
        assert world.outcomes == {TlsOutcome.NOT_TLS: 1}


async def test_a_client_without_the_root_is_counted(site: Party, said: bytes) -> None:
    async with https_world(OneSite(PLACE, said), echoing(site)) as world:
        with pytest.raises(ssl.SSLCertVerificationError):
            await world.talk(root=Issuer.root(NOW))
        await until(lambda: world.outcomes == {TlsOutcome.CLIENT_FAILED: 1})


async def test_certificates_are_kept_for_one_identity_and_end_with_it(
    site: Party, said: bytes
) -> None:
    async with https_world(OneSite(PLACE, said), echoing(site)) as world:
        shown = [(await world.talk(user=user)).certificate for user in (b"a", b"a", b"b")]
        assert shown[0] == shown[1] != shown[2]
        keys = world.sites.keys
        assert keys[0] == keys[1] != keys[2]
        first, second, third = ((one.username, one.password) for one in world.port.requests)
        assert first == second != third
        world.front.isolator.new_epoch()
        assert (await world.talk(user=b"a")).certificate != shown[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_can_be_resumed(site: Party, said: bytes, version: ssl.TLSVersion) -> None:
    """There is nothing by which two connections of a client could be tied together."""
    context = client_context(ROOT)
    context.minimum_version = context.maximum_version = version
    async with https_world(OneSite(PLACE, said), echoing(site)) as world:
        reader, writer = await world.streams()
        await writer.start_tls(context, server_hostname=HOST)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        session = writer.get_extra_info("ssl_object").session
        writer.transport.abort()
        assert not (session and session.has_ticket)


async def test_who_was_cut_off_is_seen_to_be(site: Party, said: bytes) -> None:
    """A site whose stream ends without its close_notify: no client is told that it ended well."""
    async with https_world(OneSite(PLACE, said), echoing(site, cut=True)) as world:
        context = client_context(ROOT)
        reader, writer = await world.streams()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
        said_all, cut = False, False
        while not cut:
            try:
                if not said_all:
                    tls.do_handshake()
                    tls.write(b"hello")
                    said_all = True
                tls.read(100)
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await asyncio.wait_for(reader.read(65536), 20)
                incoming.write(data) if data else incoming.write_eof()
            except ssl.SSLEOFError:
                cut = True
            except ssl.SSLZeroReturnError:
                pytest.fail("told that it ended well")
        writer.transport.abort()
        assert said_all


async def test_both_ends_are_let_go_of_when_the_client_leaves(site: Party, said: bytes) -> None:
    async with https_world(OneSite(PLACE, said), echoing(site)) as world:
        await world.talk()
        await until(lambda: len(world.front.connections) == 0 and world.port.open == 0)
        assert ISSUER is world.terminator.issuer
