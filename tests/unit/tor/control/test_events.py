"""Events: a grammar that lets nothing through but what is exactly right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.tor.control.events import (
    Bootstrap,
    Circuit,
    DescriptorUpload,
    Hop,
    Signal,
    parse_bootstrap,
    parse_circuit,
    parse_event,
)
from isoproxy.tor.control.wire import ControlReply, ReplyAssembler

FIRST, SECOND = (
    "9CF77A9F7190283AD919645650CE0BD937029630",
    "81B32188FDFFC89E5ACFC2B487BAE661C529BF76",
)


def tor_quote(value: bytes) -> bytes:
    """As tor's esc_for_log() does it."""
    named = {
        b'"': b'\\"',
        b"'": b"\\'",
        b"\\": b"\\\\",
        b"\n": b"\\n",
        b"\r": b"\\r",
        b"\t": b"\\t",
    }
    out = bytearray()
    for byte in (bytes([b]) for b in value):
        out += named.get(byte) or (byte if b" " <= byte <= b"~" else b"\\%03o" % byte[0])
    return b'"' + bytes(out) + b'"'


def event(text: bytes) -> ControlReply:
    return ControlReply(650, (text,))


def circuit(fields: bytes = b"", status: bytes = b"BUILT") -> bytes:
    path = f"${FIRST}~exit2,${SECOND}=exit1".encode()
    return b"12 " + status + b" " + path + b" PURPOSE=GENERAL" + fields


def test_a_circuit_is_read() -> None:
    found = parse_circuit(
        circuit(
            b" TIME_CREATED=2026-11-20T23:43:01.713282 CONFLUX_ID=15F7 SOCKS_USERNAME="
            + tor_quote(b"<torS0X>0")
            + b" SOCKS_PASSWORD="
            + tor_quote(b'p w"\xff\n')
        )
    )
    assert found == Circuit(
        id="12",
        status="BUILT",
        path=(Hop(FIRST, "exit2"), Hop(SECOND, "exit1")),
        purpose="GENERAL",
        username=b"<torS0X>0",
        password=b'p w"\xff\n',
        conflux_id="15F7",
    )


def test_a_circuit_without_path_or_names_is_read() -> None:
    assert parse_circuit(b"3 LAUNCHED BUILD_FLAGS=NEED_CAPACITY PURPOSE=GENERAL") == Circuit(
        "3", "LAUNCHED", purpose="GENERAL"
    )
    assert parse_circuit(f"3 EXTENDED ${FIRST}".encode()) == Circuit(
        "3", "EXTENDED", path=(Hop(FIRST, None),)
    )


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_credentials_survive_whatever_they_hold(username: bytes, password: bytes) -> None:
    line = circuit(
        b" SOCKS_USERNAME=" + tor_quote(username) + b" SOCKS_PASSWORD=" + tor_quote(password)
    )
    found = parse_event(event(b"CIRC " + line))
    assert isinstance(found, Circuit)
    assert (found.username, found.password) == (username, password)


def test_a_repr_shows_no_credentials_and_no_onion() -> None:
    found = parse_circuit(
        circuit(b' REND_QUERY=markedonion SOCKS_USERNAME="markeduser" SOCKS_PASSWORD="markedpass"')
    )
    assert found is not None
    assert "marked" not in repr(found)


def test_the_other_events_are_read() -> None:
    assert parse_event(event(b"SIGNAL NEWNYM")) == Signal("NEWNYM")
    assert parse_event(
        event(
            b"STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=80 TAG=ap_conn "
            b'SUMMARY="Connecting to a relay"'
        )
    ) == Bootstrap(80, "ap_conn", "Connecting to a relay")
    assert parse_bootstrap(
        b"WARN BOOTSTRAP PROGRESS=5 TAG=conn "
        b'SUMMARY="Connecting" WARNING="No route\\tto host" REASON=NOROUTE'
    ) == Bootstrap(5, "conn", "Connecting", "No routeto host")
    done = b'WARN BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY="Hello" WARNING="DONE"'
    assert parse_bootstrap(done) == Bootstrap(
        14, "handshake", "Hello", "the connection to a relay was closed"
    )


@pytest.mark.parametrize(
    "message",
    [
        b"650 SIGNAL NEWNYM \r\n",
        b"650 SIGNAL NEWNYM\n\r\n",
        b"650 SIGNAL newnym\r\n",
        b"650-SIGNAL NEWNYM\r\n650 OK\r\n",
        b"250 SIGNAL NEWNYM\r\n",
        b"650 HS_DESC UPLOADED " + b"a2" * 28 + b" UNKNOWN UNKNOWN\r\n",
        b"650 HS_DESC UPLOADED " + b"a2" * 27 + b" UNKNOWN $" + FIRST.encode() + b"\r\n",
        b"650 HS_DESC UPLOAD " + b"a2" * 28 + b" UNKNOWN $" + FIRST.encode() + b"\r\n",
        b"650+SIGNAL NEWNYM\r\n.\r\n650 OK\r\n",
        b"650 SIGNAL\r\n",
        b"650 STREAM 18 NEW 0 a.example:80\r\n",
        b"650 CIRC \r\n",
        b"650 CIRC 1 CLOSED extra\r\n",
        b"650 CIRC 1 UNHEARD\r\n",
        b"650 CIRC 1 CLOSED PURPOSE=A PURPOSE=B\r\n",
        b"650 CIRC 1  CLOSED\r\n",
        b"650 CIRC 1 CLOSED REASON= UNKNOWN_9\r\n",
        b"650 CIRC 1 BUILT $9CF7~exit2\r\n",
        b"650 CIRC 1 BUILT $" + FIRST.encode() + b"~a_b\r\n",
        b'650 CIRC 1 BUILT SOCKS_USERNAME="a"b"\r\n',
        b'650 CIRC 1 BUILT SOCKS_USERNAME="a\\"\r\n',
        b'650 CIRC 1 BUILT SOCKS_USERNAME="a\xff"\r\n',
        b"650 CIRC 12345678901234567 BUILT\r\n",
        b"650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=101\r\n",
        b"650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=-1\r\n",
        b"650 STATUS_CLIENT NOTICE BOOTSTRAP\r\n",
        b"650 STATUS_CLIENT WARN DANGEROUS_SOCKS PROTOCOL=SOCKS5 ADDRESS=192.0.2.1:80\r\n",
    ],
)
def test_a_line_that_is_not_exactly_right_means_nothing(message: bytes) -> None:
    assembler = ReplyAssembler()
    replies = [assembler.feed(line) for line in message.split(b"\r\n")[:-1]]
    assert isinstance(replies[-1], ControlReply)
    assert parse_event(replies[-1]) is None


@given(st.binary(max_size=80))
def test_no_line_makes_the_parsers_fail(data: bytes) -> None:
    for beginning in (b"CIRC ", b"STATUS_CLIENT NOTICE BOOTSTRAP", b"HS_DESC UPLOADED ", b""):
        parse_event(event(beginning + data))


def test_an_upload_is_read_and_its_repr_shows_no_onion() -> None:
    body = b"HS_DESC UPLOADED " + b"a2" * 28 + b" UNKNOWN $" + FIRST.encode() + b"~exit2"
    found = parse_event(event(body))
    assert found == DescriptorUpload("a2" * 28)
    assert "a2a2" not in repr(found)


def test_words_for_a_terminal_hold_no_control_characters() -> None:
    found = parse_bootstrap(b'NOTICE BOOTSTRAP PROGRESS=1 TAG=t SUMMARY="a\\033[2Jb\\rc"')
    assert found == Bootstrap(1, "t", "a[2Jbc")
