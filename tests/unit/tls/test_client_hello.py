"""A ClientHello is read however it is cut, and what is none is refused in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.tls.client_hello import MAX_HELLO, ClientHello, ClientHelloReader
from tests.unit.tls.hellos import extension, message, real_hello, records, server_name, vector

_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
_PROTOCOLS = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


def read(pieces: Iterable[bytes]) -> ClientHello | None:
    reader = ClientHelloReader()
    for piece in pieces:
        if (hello := reader.receive(piece)) is not None:
            return hello
    return None


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


@given(_LABEL, _PROTOCOLS, st.integers(1, 600))
def test_what_was_written_is_read_in_every_cut(
    label: str, protocols: list[bytes], record: int
) -> None:
    listed = vector(2, b"".join(vector(1, protocol) for protocol in protocols))
    name = f"{label}.bit"
    said = message(
        extension(43, b"\x02\x03\x04"), server_name(name.encode()), extension(16, listed)
    )
    expected = ClientHello(name, tuple(protocols))
    assert read([records(said)]) == expected
    assert read(byte_by_byte(records(said, record))) == expected


@pytest.mark.parametrize("name", ["name.bit", None])
@pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1")])
def test_a_real_client_is_understood(name: str | None, protocols: tuple[str, ...]) -> None:
    hello = real_hello(name, protocols)
    expected = ClientHello(name, tuple(protocol.encode() for protocol in protocols))
    assert read([hello]) == read(byte_by_byte(hello)) == expected
    assert read(byte_by_byte(hello[:-1])) is None


def test_all_that_was_received_is_kept_for_the_library() -> None:
    reader, said = ClientHelloReader(), real_hello("name.bit") + b"more"
    assert reader.receive(said) is not None
    assert reader.received == said


def test_a_name_has_one_form() -> None:
    assert read([records(message(server_name(b"NAME.Bit")))]) == ClientHello("name.bit", ())


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        records(b"\x02\x00\x00\x00"),
        records(b"\x01\x00\x00\x00"),
        records(message(server_name(b"a.bit"), server_name(b"b.bit"))),
        records(message(server_name(b"a.bit", kind=1))),
        records(message(server_name(b""))),
        records(message(server_name("ä.bit".encode()))),
        records(message(extension(0, vector(2, b"\x00" + vector(2, b"a") + b"\x00\x00\x01b")))),
        records(message(extension(16, vector(2, b"\x00")))),
        records(message(extension(16, vector(2, b"\x02h2") + b"!"))),
        records(message(b"\x00")),
        records(b"\x01" + vector(3, message()[4:] + b"!")),
    ],
)
def test_what_is_no_client_hello_is_refused(said: bytes) -> None:
    for pieces in ([said], byte_by_byte(said)):
        with pytest.raises(RemoteProtocolError):
            read(pieces)


def test_one_that_claims_to_be_huge_is_refused_by_its_header() -> None:
    header = b"\x01" + (MAX_HELLO + 1).to_bytes(3)
    with pytest.raises(LimitExceeded):
        read(byte_by_byte(records(header)))


@given(st.binary(max_size=300))
@example(b"\x16\x03\x01\x00\x01\x01" * 40)
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    outcomes = []
    for pieces in ([data], byte_by_byte(data)):
        try:
            outcomes.append(read(pieces))
        except RemoteProtocolError as error:
            outcomes.append(None)
            assert not error.reply
    assert outcomes[0] == outcomes[1]


def test_what_is_kept_is_bounded() -> None:
    """Even of a message in records of one byte, each of which has a header."""
    reader, longest = ClientHelloReader(), b"\x01" + vector(3, bytes(MAX_HELLO))
    said = records(longest, 1)
    for at in range(0, len(said) - 6, 4096):
        assert reader.receive(said[at : min(at + 4096, len(said) - 6)]) is None
    assert len(reader.received) < 6 * (MAX_HELLO + 4)
    with pytest.raises(RemoteProtocolError):
        reader.receive(said[-6:])
