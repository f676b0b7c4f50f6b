"""What a client gets for what it says: requests with keys, answers, refusals."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, LocalProtocolError, RemoteProtocolError
from isoproxy.front.judgement import ClientHandshake, FinalReply, HandshakeRule, ProxyRequest
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    Isolator,
    ListenerRule,
    client_of_address,
    own_group,
)
from isoproxy.namecoin.value.name import Route, TopLevels
from isoproxy.net.target import Target
from isoproxy.socks.wire import encode_address

ISOLATOR = Isolator()
RULE = HandshakeRule(ListenerRule(own_group("a")))
CLIENT = client_of_address("127.0.0.1")
SOCKS4 = b"\x04\x01\x00\x50\x00\x00\x00\x01bob\x00a.test\x00"
HTTP = b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n"


def socks5(host: bytes, *, user: bytes | None = None, command: int = 1, port: int = 80) -> bytes:
    greeting = b"\x05\x01\x00"
    if user is not None:
        greeting = b"\x05\x01\x02\x01%c%b\x01p" % (len(user), user)
    return greeting + bytes((5, command, 0)) + encode_address(host, port)


def ask(
    data: bytes, rule: HandshakeRule = RULE, client: bytes | None = CLIENT
) -> ProxyRequest | FinalReply:
    outcome = ClientHandshake(rule, ISOLATOR, client).receive(data)
    assert outcome is not None
    return outcome


def request(data: bytes, rule: HandshakeRule = RULE, client: bytes | None = CLIENT) -> ProxyRequest:
    outcome = ask(data, rule, client)
    assert isinstance(outcome, ProxyRequest)
    return outcome


def test_the_same_tuple_gets_the_same_key_whatever_the_destination() -> None:
    assert request(socks5(b"a.test", user=b"u")).key == request(socks5(b"b.test", user=b"u")).key


@pytest.mark.parametrize(
    ("flag", "one", "two"),
    [
        (Isolate.SOCKS_AUTH, socks5(b"a.test", user=b"u"), socks5(b"a.test", user=b"v")),
        (Isolate.CLIENT_PROTOCOL, socks5(b"a.test"), HTTP),
        (Isolate.DEST_ADDR, socks5(b"a.test"), socks5(b"b.test")),
        (Isolate.DEST_PORT, socks5(b"a.test"), socks5(b"a.test", port=81)),
    ],
)
def test_each_flag_separates_what_it_names_and_nothing_else(
    flag: Isolate, one: bytes, two: bytes
) -> None:
    with_flag = replace(RULE, listener=ListenerRule(own_group("a"), flag))
    without = replace(RULE, listener=ListenerRule(own_group("a"), Isolate.NOTHING))
    assert request(one, with_flag).key != request(two, with_flag).key
    assert request(one, without).key == request(two, without).key


def credentials_over_socks5(user: bytes, password: bytes) -> bytes:
    greeting = b"\x05\x01\x02\x01%c%b%c%b" % (len(user), user, len(password), password)
    return greeting + b"\x05\x01\x00" + encode_address(b"a.test", 80)


def credentials_over_http(user: bytes, password: bytes) -> bytes:
    login = base64.b64encode(user + b":" + password)
    return HTTP.replace(b"\r\n\r\n", b"\r\nProxy-Authorization: Basic %b\r\n\r\n" % login)


BANK = b"bank" * 60


@pytest.mark.parametrize("over", [credentials_over_socks5, credentials_over_http])
@pytest.mark.parametrize(
    "other",
    [
        b"B" + BANK[1:],
        BANK[:-1] + b"x",
        b" " + BANK,
        BANK + b" ",
        BANK + b"\t",
        BANK + b"\x00",
        BANK + b"\x00x",
    ],
)
def test_every_byte_of_a_credential_counts(
    over: Callable[[bytes, bytes], bytes], other: bytes
) -> None:
    """Case, blanks, the last one and what comes after a NUL, as they come from the wire."""
    one = request(over(BANK, BANK)).key
    assert request(over(BANK, BANK)).key == one
    assert request(over(other, BANK)).key != one
    assert request(over(BANK, other)).key != one


def test_socks4_is_a_protocol_of_its_own_and_its_user_id_a_user_name() -> None:
    by_user = replace(RULE, listener=ListenerRule(own_group("a"), Isolate.SOCKS_AUTH))
    users = (b"", b"b", b"bob", b"bobby", b"bob ")
    said = [SOCKS4.replace(b"bob", user) for user in users] + [socks5(b"a.test")]
    assert len({request(data, by_user).key for data in said}) == len(said)
    by_protocol = replace(RULE, listener=ListenerRule(own_group("a"), Isolate.CLIENT_PROTOCOL))
    assert len({request(data, by_protocol).key for data in (SOCKS4, HTTP, said[-1])}) == 3


def test_client_addresses_separate() -> None:
    other = client_of_address("127.0.0.2")
    assert request(socks5(b"a.test")).key != request(socks5(b"a.test"), client=other).key
    loose = replace(RULE, listener=ListenerRule(own_group("a"), Isolate.SOCKS_AUTH))
    assert request(socks5(b"a.test"), loose).key == request(socks5(b"a.test"), loose, other).key


def test_one_port_speaks_every_protocol() -> None:
    protocols = {
        b"\x05": (socks5(b"a.test"), ClientProtocol.SOCKS5),
        b"\x04": (SOCKS4, ClientProtocol.SOCKS4),
        b"C": (HTTP, ClientProtocol.HTTP_CONNECT),
    }
    for data, protocol in protocols.values():
        found = request(data)
        assert found.stream.protocol is protocol
        assert found.target == Target("a.test", 80)
        assert not found.resolve_first


@given(st.integers(1, 60), st.sampled_from([socks5(b"a.test", user=b"u"), SOCKS4, HTTP]))
def test_any_pieces_give_the_same_request(size: int, data: bytes) -> None:
    session = ClientHandshake(RULE, ISOLATOR, CLIENT)
    outcomes = [session.receive(data[at : at + size]) for at in range(0, len(data), size)]
    assert outcomes[-1] == request(data)
    assert not any(outcomes[:-1])


def test_optimistic_data_is_kept() -> None:
    for data in (socks5(b"a.test"), SOCKS4, HTTP):
        session = ClientHandshake(RULE, ISOLATOR, CLIENT)
        assert session.receive(data + b"early") is not None
        assert session.leftover == b"early"


def test_resolving_a_literal_address_is_answered_here() -> None:
    outcome = ask(socks5(b"192.0.2.1", command=0xF0))
    assert isinstance(outcome, FinalReply)
    assert outcome.kind is None
    assert outcome.reply == bytes.fromhex("050005000001c00002010000")


@pytest.mark.parametrize(
    ("host", "command", "kind"),
    [
        (b"x.bit", 1, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"X.BIT.", 1, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"x.bit", 0xF0, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"x.bit.onion", 1, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"a.home.arpa", 1, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"onion", 1, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"Onion.", 0xF0, ErrorKind.NAME_NEVER_SENT_TO_TOR),
        (b"a b", 1, ErrorKind.NAME_SYNTAX),
        (b"a\r\n650 STREAM", 1, ErrorKind.NAME_SYNTAX),
        (b"a.test", 0xF1, ErrorKind.NAME_SYNTAX),
    ],
)
def test_refusals_come_with_their_kind_and_a_reply(
    host: bytes, command: int, kind: ErrorKind
) -> None:
    outcome = ask(socks5(host, command=command))
    assert isinstance(outcome, FinalReply)
    assert outcome.kind is kind
    assert outcome.reply[:2] == b"\x05\x00"
    assert outcome.reply[3] != 0


@pytest.mark.parametrize(
    "data",
    [
        socks5(b"a.ONION."),
        socks5(b"a.ONION.", command=0xF0),
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a.ONION.\x00",
        b"CONNECT a.ONION.:80 HTTP/1.1\r\nHost: a.ONION.\r\n\r\n",
    ],
)
def test_an_onion_service_with_a_final_dot_is_sent_to_tor_without(data: bytes) -> None:
    asked = request(data, replace(RULE, listener=ListenerRule(own_group("a"), Isolate.DEST_ADDR)))
    assert asked.target.host == "a.onion"
    assert asked.target.is_onion
    assert asked.stream.dest_host == b"a.onion"


def test_a_resolver_takes_the_names_it_claims() -> None:
    rule = replace(RULE, top_levels=TopLevels())
    for host in (b"x.bit", b"X.Bit.", b"WWW.x.bit", b"x.bit.onion", b"X.BIT.ONION."):
        assert request(socks5(host), rule).resolve_first
        assert request(socks5(host, command=0xF0), rule).resolve_first
    for host in (b"a.test", b"bit.test", b"xbit", b"a" * 56 + b".onion", b"192.0.2.1"):
        assert not request(socks5(host), rule).resolve_first


def test_the_table_of_top_levels_is_the_configurations() -> None:
    rule = replace(RULE, top_levels=TopLevels({"lan": Route.REFUSE, "local": Route.TOR}))
    refused = ask(socks5(b"printer.lan"), rule)
    assert isinstance(refused, FinalReply)
    assert refused.kind is ErrorKind.NAME_NEVER_SENT_TO_TOR
    assert not request(socks5(b"printer.local"), rule).resolve_first


@pytest.mark.parametrize("first", [b"\x16\x03\x01", b"\x00", b"\xff", b"\x06", b"\n"])
def test_other_protocols_are_told_so(first: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ClientHandshake(RULE, ISOLATOR, CLIENT).receive(first)
    assert caught.value.reply


def test_tls_on_the_port_gets_an_alert() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ClientHandshake(RULE, ISOLATOR, CLIENT).receive(b"\x16\x03\x01\x02\x00")
    assert caught.value.reply[:3] == b"\x15\x03\x01"


def test_answers_in_the_clients_protocol() -> None:
    session = ClientHandshake(RULE, ISOLATOR, CLIENT)
    assert session.refuse(ErrorKind.HANDSHAKE_TIMEOUT) == b""
    session.receive(HTTP)
    assert session.succeed().startswith(b"HTTP/1.0 200")
    assert session.refuse(ErrorKind.ONION_NOT_FOUND).startswith(b"HTTP/1.0 503")
    with pytest.raises(LocalProtocolError):
        session.resolved_name(b"x")


@given(st.binary(min_size=1, max_size=400), st.integers(1, 50))
def test_garbage_ends_in_a_request_an_answer_or_one_error(data: bytes, size: int) -> None:
    session = ClientHandshake(RULE, ISOLATOR, CLIENT)
    for at in range(0, len(data), size):
        try:
            if session.receive(data[at : at + size]) is not None:
                return
        except RemoteProtocolError as error:
            assert isinstance(error.reply, bytes)
            return


def test_http_clients_are_asked_for_credentials_where_the_listener_does() -> None:
    plain = HTTP
    login = HTTP.replace(b"Host", b"Proxy-Authorization: Basic YTpi\r\nHost")
    rule = replace(RULE, proxy_auth_challenge=True)
    assert request(plain).stream.username is None
    with pytest.raises(RemoteProtocolError) as caught:
        ask(plain, rule)
    assert caught.value.reply.startswith(b"HTTP/1.0 407 ")
    assert b"Proxy-Authenticate: Basic" in caught.value.reply
    assert request(login, rule).key == request(login).key
    assert request(socks5(b"a.test"), rule).key == request(socks5(b"a.test")).key


@pytest.mark.parametrize(
    ("host", "port", "command", "secure"),
    [
        (b"name.bit", 443, 1, True),
        (b"WWW.Name.bit.", 443, 1, True),
        (b"name.bit", 80, 1, False),
        (b"name.bit", 8443, 1, False),
        (b"name.bit", 443, 0xF0, False),
        (b"name.bit.onion", 443, 1, False),
        (b"a.test", 443, 1, False),
        (b"orbit", 443, 1, False),
    ],
)
def test_tls_is_answered_for_https_under_bit_and_where_the_listener_has_it_on(
    host: bytes, port: int, command: int, secure: bool
) -> None:
    rule = replace(RULE, top_levels=TopLevels(), tls=True)
    asked = socks5(host, port=port, command=command)
    assert request(asked, rule).tls is secure
    assert not request(asked, replace(rule, tls=False)).tls
    if host.endswith(b"bit"):
        outcome = ask(asked, replace(rule, top_levels=TopLevels().without_namecoin()))
        assert isinstance(outcome, FinalReply) or not outcome.tls
