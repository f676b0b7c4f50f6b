"""The listener's side of SOCKS, whole, in pieces, and under garbage."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, LocalProtocolError, RemoteProtocolError
from isoproxy.isolation import accepts_username
from isoproxy.socks import Command, Request, Server, Version
from isoproxy.socks.server import MAX_LEFTOVER
from isoproxy.socks.wire import encode_address

ELECTRUM_PROBE = bytes.fromhex("05010005f0000307") + b"0.0.0.0\x00\x00"
ELECTRUM_EXPECTS = bytes.fromhex("050005000001000000000000")


def auth(username: bytes, password: bytes) -> bytes:
    return b"\x01%c%b%c%b" % (len(username), username, len(password), password)


def request(command: int, host: bytes, port: int) -> bytes:
    return bytes((5, command, 0)) + encode_address(host, port)


def feed(server: Server, data: bytes, size: int) -> Request | None:
    """Feed in pieces of `size` bytes until there is a request; the rest is leftover."""
    found = None
    for at in range(0, len(data), size):
        found = server.receive(data[at : at + size]) or found
    return found


def test_electrum_recognises_tor_byte_for_byte() -> None:
    server = Server()
    found = server.receive(ELECTRUM_PROBE)
    assert found is not None
    assert found.command is Command.RESOLVE
    assert server.data_to_send() + server.resolved(ip_address("0.0.0.0")) == ELECTRUM_EXPECTS


def test_pipelined_messages_are_answered_in_order_at_once() -> None:
    server = Server()
    found = server.receive(b"\x05\x02\x00\x02" + auth(b"u", b"p") + request(1, b"a.test", 80))
    assert found == Request(Version.SOCKS5, Command.CONNECT, b"a.test", 80, b"u", b"p")
    assert server.data_to_send() == b"\x05\x02\x01\x00"
    assert server.data_to_send() == b""
    assert server.succeed() == bytes.fromhex("05000001000000000000")


@given(
    credentials=st.none() | st.tuples(st.binary(max_size=255), st.binary(max_size=255)),
    host=st.binary(min_size=1, max_size=255),
    port=st.integers(1, 0xFFFF),
    command=st.sampled_from([Command.CONNECT, Command.RESOLVE, Command.RESOLVE_PTR]),
    early=st.binary(max_size=40),
    size=st.integers(1, 600),
)
def test_any_handshake_in_any_pieces(
    credentials: tuple[bytes, bytes] | None,
    host: bytes,
    port: int,
    command: Command,
    early: bytes,
    size: int,
) -> None:
    data = b"\x05\x01\x00" if credentials is None else b"\x05\x01\x02" + auth(*credentials)
    server = Server()
    found = feed(server, data + request(command, host, port) + early, size)
    username, password = credentials if credentials is not None else (None, None)
    assert found == Request(Version.SOCKS5, command, host, port, username, password)
    assert server.leftover == early
    assert server.data_to_send() == (b"\x05\x00" if credentials is None else b"\x05\x02\x01\x00")


@given(
    username=st.binary(max_size=255).map(lambda b: b.replace(b"\x00", b"")),
    host=st.none() | st.binary(min_size=1, max_size=255).map(lambda b: b.replace(b"\x00", b"x")),
    early=st.binary(max_size=9),
    size=st.integers(1, 600),
)
def test_any_socks4_handshake_in_any_pieces(
    username: bytes, host: bytes | None, early: bytes, size: int
) -> None:
    address = b"\x00\x00\x00\x01" if host is not None else bytes((192, 0, 2, 1))
    data = b"\x04\x01\x00\x50" + address + username + b"\x00"
    if host is not None:
        data += host + b"\x00"
    server = Server()
    found = feed(server, data + early, size)
    expected = host if host is not None else b"192.0.2.1"
    assert found == Request(Version.SOCKS4, Command.CONNECT, expected, 80, username, None)
    assert server.leftover == early
    assert server.succeed() == b"\x00\x5a" + bytes(6)
    assert server.refuse(ErrorKind.ONION_NOT_FOUND) == b"\x00\x5b" + bytes(6)


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=12))
@example([b"\x04\x01\x00\x50\x00\x00\x00\x01", *[b"u" * 200] * 11])  # a user name without end
@example([b"\x04\x01\x00\x50\x00\x00\x00\x01u\x00", *[b"h" * 200] * 11])
@example([b"\x05\xff" + bytes(200), bytes(55), *[b"\x01\xff"] * 11])
def test_garbage_ends_in_one_documented_error_and_bounded_memory(chunks: list[bytes]) -> None:
    server = Server(accepts_username=accepts_username)
    for chunk in chunks:
        try:
            server.receive(chunk)
        except RemoteProtocolError as error:
            assert error.reply
            with pytest.raises(LocalProtocolError):
                server.receive(b"x")
            return
    # at most a SOCKS4 request with two whole fields, or what came behind a request
    assert server.leftover or len(server._buffer) <= 8 + 2 * (255 + 1)
    assert len(server.leftover) <= MAX_LEFTOVER


@pytest.mark.parametrize(
    ("data", "reply", "kind"),
    [
        (b"\x05\x01\x01", "05ff", ErrorKind.AUTH_REQUIRED),
        (b"\x05\x00", "05ff", ErrorKind.AUTH_REQUIRED),
        (b"\x06", "05ff", ErrorKind.MALFORMED),
        (b"\x05\x01\x00" + request(2, b"a", 1), "050005070001000000000000", None),
        (b"\x05\x01\x00" + request(3, b"a", 1), "050005070001000000000000", None),
        (b"\x05\x01\x00\x05\x01\x00\x02\x00", "050005010001000000000000", None),
        (b"\x05\x01\x00" + request(1, b"a", 0), "050005010001000000000000", None),
        (b"\x05\x01\x00\x04\x01\x00\x01\x00", "050005010001000000000000", None),
        (b"\x05\x01\x02\x05", "05020101", ErrorKind.MALFORMED),
        (b"\x05\x01\x02" + auth(b"<torS0X>1", b""), "05020101", ErrorKind.RESERVED_USERNAME),
        (b"\x04\x02\x00\x50\x01\x02\x03\x04\x00", "005b000000000000", None),
        (b"\x04\x01\x00\x00\x01\x02\x03\x04\x00", "005b000000000000", None),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", "005b000000000000", None),
        (b"\x04\x01\x00\x50\x01\x02\x03\x04" + b"x" * 256, "005b000000000000", None),
    ],
)
def test_a_refused_client_is_told_in_its_own_protocol(
    data: bytes, reply: str, kind: ErrorKind | None
) -> None:
    server = Server(accepts_username=accepts_username)
    with pytest.raises(RemoteProtocolError) as caught:
        server.receive(data)
    assert caught.value.reply == bytes.fromhex(reply)
    assert kind is None or caught.value.kind is kind


def test_an_authentication_message_after_no_auth_is_accepted() -> None:
    server = Server()
    found = server.receive(b"\x05\x01\x00" + auth(b"", b"") + request(1, b"a.test", 1))
    assert found is not None
    assert (found.username, found.password) == (b"", b"")
    assert server.data_to_send() == b"\x05\x00\x01\x00"


@pytest.mark.parametrize("method", [0, 2])
@pytest.mark.parametrize("size", [1, 600])
def test_nobody_authenticates_twice_however_the_bytes_arrive(method: int, size: int) -> None:
    """Else the credentials that count would depend on where a segment ends."""
    server = Server()
    data = b"\x05\x01" + bytes([method]) + auth(b"first", b"") + auth(b"second", b"")
    with pytest.raises(RemoteProtocolError) as caught:
        feed(server, data + request(1, b"a.test", 1), size)
    assert caught.value.reply.endswith(b"\x05\x01\x00\x01" + bytes(6))


def test_a_listener_may_require_credentials() -> None:
    for data in (b"\x05\x01\x00", b"\x04\x01\x00\x50\x01\x02\x03\x04\x00"):
        with pytest.raises(RemoteProtocolError) as caught:
            Server(require_auth=True).receive(data)
        assert caught.value.kind is ErrorKind.AUTH_REQUIRED
    assert Server(require_auth=True).receive(b"\x05\x01\x02") is None


def test_extended_errors_are_sent_only_where_they_are_wanted() -> None:
    for extended, code in ((True, 0xF6), (False, 0x01)):
        server = Server(extended_errors=extended)
        server.receive(b"\x05\x01\x00" + request(1, b"x.onion", 80))
        assert server.refuse(ErrorKind.ONION_BAD_ADDRESS)[1] == code


def test_replies_on_a_unix_socket_name_the_ipv6_wildcard() -> None:
    server = Server(unix=True)
    server.receive(b"\x05\x01\x00" + request(1, b"a.test", 80))
    assert server.succeed() == b"\x05\x00\x00\x04" + bytes(18)
    assert server.refuse(ErrorKind.BUSY) == b"\x05\x01\x00\x04" + bytes(18)


def test_resolve_answers() -> None:
    server = Server()
    server.receive(b"\x05\x01\x00" + request(0xF0, b"a.test", 0))
    assert server.resolved(ip_address("192.0.2.1"))[3:8] == b"\x01\xc0\x00\x02\x01"
    assert len(server.resolved(ip_address("::1"))) == 22
    assert server.resolved_name(b"a.test") == b"\x05\x00\x00\x03\x06a.test\x00\x00"
    old = Server()
    old.receive(b"\x04\xf0\x00\x00\x00\x00\x00\x01u\x00a.test\x00")
    assert old.resolved(ip_address("192.0.2.1")) == bytes.fromhex("005a0000c0000201")
    assert old.resolved(ip_address("::1")) == b"\x00\x5b" + bytes(6)


def test_an_answer_without_a_request_is_our_own_defect() -> None:
    with pytest.raises(LocalProtocolError):
        Server().succeed()


def test_optimistic_data_is_bounded() -> None:
    server = Server()
    server.receive(b"\x05\x01\x00" + request(1, b"a.test", 80))
    server.receive(b"x" * MAX_LEFTOVER)
    with pytest.raises(RemoteProtocolError):
        server.receive(b"x")


def test_a_request_does_not_print_what_it_asks_for() -> None:
    found = Server().receive(b"\x05\x01\x00" + request(1, b"secret.test", 80))
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("begun", "refusal"),
    [
        (b"\x05", b"\x05\xff"),
        (b"\x05\x02\x00", b"\x05\xff"),
        (b"\x05\x01\x02", b"\x01\x01"),
        (b"\x05\x01\x02\x01\x04use", b"\x01\x01"),
        (b"\x05\x01\x02" + auth(b"u", b"p"), b"\x05\x01\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x05\x01", b"\x05\x01\x00\x01" + bytes(6)),
        (b"\x04\x01\x00\x50", b"\x00\x5b" + bytes(6)),
    ],
)
def test_an_unfinished_handshake_is_refused_in_the_words_its_client_waits_for(
    begun: bytes, refusal: bytes
) -> None:
    server = Server()
    assert server.receive(begun) is None
    server.data_to_send()
    assert server.refuse(ErrorKind.HANDSHAKE_TIMEOUT) == refusal
