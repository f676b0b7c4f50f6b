"""The control protocol's bytes: framing, replies, and a grammar that lets nothing through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from isoproxy.tor.control.wire import (
    MAX_LINE,
    MAX_MESSAGE,
    Bootstrap,
    Circuit,
    Hop,
    MessageSplitter,
    Signal,
    parse_bootstrap,
    parse_circuit,
    parse_event,
    parse_reply,
    unquote,
)

FIRST, SECOND = (
    "9CF77A9F7190283AD919645650CE0BD937029630",
    "81B32188FDFFC89E5ACFC2B487BAE661C529BF76",
)
MESSAGES = [
    b"250 OK\r\n",
    b"250-version=0.4.9.11\r\n250 OK\r\n",
    b"250+circuit-status=\r\n1 BUILT\r\n..dot\r\n250 OK\r\n.\r\n250 OK\r\n",
    b"650 SIGNAL NEWNYM\r\n",
    b"552 Unrecognized event\r\n",
]


def quote(value: bytes) -> bytes:
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


def circuit(fields: bytes = b"", status: bytes = b"BUILT") -> bytes:
    path = f"${FIRST}~exit2,${SECOND}=exit1".encode()
    return b"12 " + status + b" " + path + b" PURPOSE=GENERAL" + fields


def test_messages_come_out_whole_in_any_cut() -> None:
    stream = b"".join(MESSAGES)
    for size in (1, 2, 3, 7, len(stream)):
        splitter = MessageSplitter()
        found = []
        for start in range(0, len(stream), size):
            found += splitter.feed(stream[start : start + size])
        assert found == MESSAGES


@pytest.mark.parametrize(
    "line", [b"HTTP/1.0 400\r\n", b"\r\n", b"25 OK\r\n", b"250OK\r\n", b"\x05\x01\r\n"]
)
def test_what_is_no_control_message_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        MessageSplitter().feed(line)


def test_an_endless_line_is_refused() -> None:
    splitter = MessageSplitter()
    for _ in range(MAX_LINE // 1000):
        assert splitter.feed(b"2" * 1000) == []
    with pytest.raises(LimitExceeded):
        splitter.feed(b"2" * 1000)


def test_a_line_that_came_at_once_is_bounded_too() -> None:
    with pytest.raises(LimitExceeded):
        MessageSplitter().feed(b"250 " + b"a" * MAX_LINE + b"\r\n")


def test_an_endless_message_is_refused() -> None:
    splitter = MessageSplitter()
    chunk = b"250-" + b"a" * 60000 + b"\r\n"
    for _ in range(MAX_MESSAGE // len(chunk)):
        assert splitter.feed(chunk) == []
    with pytest.raises(LimitExceeded):
        splitter.feed(chunk)


@given(st.binary(max_size=300), st.integers(1, 5))
def test_garbage_is_refused_or_waits(data: bytes, size: int) -> None:
    splitter = MessageSplitter()
    try:
        for start in range(0, len(data), size):
            for message in splitter.feed(data[start : start + size]):
                parse_reply(message)
                parse_event(message)
    except RemoteProtocolError:
        pass


def test_a_reply_has_code_and_lines() -> None:
    reply = parse_reply(b"250-a=1\r\n250-b=2\r\n250 OK\r\n")
    assert (reply.code, reply.is_ok, reply.lines) == (250, True, (b"a=1", b"b=2", b"OK"))
    assert parse_reply(b"252 Registered client\r\n").is_ok
    assert not parse_reply(b"552 Unrecognized\r\n").is_ok


def test_a_data_block_is_joined_and_its_dots_restored() -> None:
    assert parse_reply(MESSAGES[2]).lines == (b"circuit-status=\n1 BUILT\n.dot\n250 OK", b"OK")


@given(st.binary(max_size=60))
def test_a_quoted_string_gives_its_bytes_back(value: bytes) -> None:
    assert unquote(quote(value)) == value


def test_a_circuit_is_read() -> None:
    found = parse_circuit(
        circuit(
            b" TIME_CREATED=2026-11-20T23:43:01.713282 CONFLUX_ID=15F7 SOCKS_USERNAME="
            + quote(b"<torS0X>0")
            + b" SOCKS_PASSWORD="
            + quote(b'p w"\xff\n')
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
    line = circuit(b" SOCKS_USERNAME=" + quote(username) + b" SOCKS_PASSWORD=" + quote(password))
    event = parse_event(b"650 CIRC " + line + b"\r\n")
    assert isinstance(event, Circuit)
    assert (event.username, event.password) == (username, password)


def test_a_repr_shows_no_credentials_and_no_onion() -> None:
    found = parse_circuit(
        circuit(b' REND_QUERY=markedonion SOCKS_USERNAME="markeduser" SOCKS_PASSWORD="markedpass"')
    )
    assert found is not None
    assert "marked" not in repr(found)


def test_the_other_events_are_read() -> None:
    assert parse_event(b"650 SIGNAL NEWNYM\r\n") == Signal("NEWNYM")
    assert parse_event(
        b"650 STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=80 TAG=ap_conn "
        b'SUMMARY="Connecting to a relay"\r\n'
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
        b"650 SIGNAL NEWNYM",
        b"650 SIGNAL NEWNYM \r\n",
        b"650 SIGNAL NEWNYM\n\r\n",
        b"650 SIGNAL newnym\r\n",
        b"650-SIGNAL NEWNYM\r\n",
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
    assert parse_event(message) is None


@given(st.binary(max_size=80))
def test_no_line_makes_the_parsers_fail(data: bytes) -> None:
    parse_event(b"650 CIRC " + data + b"\r\n")
    parse_event(b"650 STATUS_CLIENT NOTICE BOOTSTRAP" + data + b"\r\n")
    parse_event(data)


def test_words_for_a_terminal_hold_no_control_characters() -> None:
    found = parse_bootstrap(b'NOTICE BOOTSTRAP PROGRESS=1 TAG=t SUMMARY="a\\033[2Jb\\rc"')
    assert found == Bootstrap(1, "t", "a[2Jbc")
