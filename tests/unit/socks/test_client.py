"""Our side towards Tor: what is sent when, and every answer there can be."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, LocalProtocolError, RemoteProtocolError
from isoproxy.socks import Address, Client, Command, Reply, Server, encode_reply

OK = encode_reply(0)


def host_of(reply: Reply | None) -> Address | bytes:
    assert reply is not None
    return reply.host


def connecting(optimistic_data: bytes = b"") -> Client:
    client = Client(
        Command.CONNECT,
        b"a.test",
        80,
        username=b"u",
        password=b"p",
        optimistic_data=optimistic_data,
    )
    assert client.data_to_send() == b"\x05\x01\x02"
    return client


def test_credentials_wait_for_the_method_and_then_take_all_with_them() -> None:
    client = connecting(b"GET /")
    assert client.receive(b"\x05") is None
    assert client.data_to_send() == b""
    assert client.receive(b"\x02") is None
    assert client.data_to_send() == b"\x01\x01u\x01p\x05\x01\x00\x03\x06a.test\x00\x50GET /"
    assert host_of(client.receive(b"\x01\x00" + OK + b"hello")) == ip_address("0.0.0.0")
    assert client.leftover == b"hello"


@given(
    answer=st.sampled_from([OK, encode_reply(0, ip_address("::")), encode_reply(0, b"name", 9)]),
    data=st.binary(max_size=30),
)
def test_reading_what_is_wanted_never_takes_the_far_ends_bytes(answer: bytes, data: bytes) -> None:
    client = connecting()
    stream = b"\x05\x02\x01\x00" + answer + data
    reply = None
    while reply is None:
        wanted = client.wanted
        assert 0 < wanted <= len(stream)
        reply = client.receive(stream[:wanted])
        stream = stream[wanted:]
    assert stream == data
    assert client.leftover == b""
    assert client.wanted == 0


@given(st.integers(1, 40), st.binary(max_size=10))
def test_any_pieces_give_the_same_reply(size: int, rest: bytes) -> None:
    client = connecting()
    stream = b"\x05\x02\x01\x00" + encode_reply(0, ip_address("192.0.2.1"), 9)
    replies = [client.receive(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert host_of(replies[-1]) == ip_address("192.0.2.1")
    assert replies[:-1] == [None] * (len(replies) - 1)


@given(st.binary(min_size=1, max_size=80))
def test_garbage_from_the_socks_port_is_an_error_never_a_stream(data: bytes) -> None:
    client = connecting()
    try:
        reply = client.receive(data)
    except RemoteProtocolError:
        with pytest.raises(LocalProtocolError):
            client.receive(b"x")
        return
    assert reply is None or data.startswith(b"\x05\x02\x01\x00\x05\x00")


@pytest.mark.parametrize("code", [*range(1, 9), *range(0xF0, 0xF8), 0x99])
def test_each_refusal_keeps_its_meaning(code: int) -> None:
    client = connecting()
    with pytest.raises(RemoteProtocolError) as caught:
        client.receive(b"\x05\x02\x01\x00" + encode_reply(code))
    assert caught.value.kind is not ErrorKind.TOR_PROTOCOL


@pytest.mark.parametrize(
    "answer",
    [
        b"\x05\x00",
        b"\x05\xff",
        b"HT",
        b"\x05\x02\x01\x01",
        b"\x05\x02\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00",
        b"\x05\x02\x01\x00\x04\x00\x00\x01\x00\x00",
        b"\x05\x02\x01\x00\x05\x00\x00\x09\x00\x00",
    ],
)
def test_what_is_not_tor_is_recognised(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        connecting().receive(answer)
    assert caught.value.kind is ErrorKind.TOR_PROTOCOL


def test_the_step_names_what_is_waited_for() -> None:
    client = connecting()
    assert client.step == "greeting"
    client.receive(b"\x05\x02")
    assert client.step == "authentication"
    client.receive(b"\x01\x00")
    assert client.step == "connect"
    client.receive(OK)
    assert client.step == "nothing"


def test_credentials_fit_their_length_byte() -> None:
    with pytest.raises(LocalProtocolError):
        Client(Command.CONNECT, b"a", 1, username=b"x" * 256, password=b"")


@given(
    host=st.ip_addresses() | st.ip_addresses().map(str) | st.binary(min_size=1, max_size=255),
    port=st.integers(1, 0xFFFF),
    username=st.binary(max_size=255),
    password=st.binary(max_size=255),
    early=st.binary(max_size=30),
)
def test_client_and_server_understand_each_other(
    host: Address | bytes | str, port: int, username: bytes, password: bytes, early: bytes
) -> None:
    client = Client(
        Command.CONNECT, host, port, username=username, password=password, optimistic_data=early
    )
    server = Server()
    found = None
    while found is None:
        found = server.receive(client.data_to_send())
        assert client.receive(server.data_to_send()) is None
    expected = host if isinstance(host, bytes) else str(host).encode()
    assert (found.host, found.port) == (expected, port)
    assert (found.username, found.password) == (username, password)
    assert server.leftover == early
    assert host_of(client.receive(server.succeed())) == ip_address("0.0.0.0")
