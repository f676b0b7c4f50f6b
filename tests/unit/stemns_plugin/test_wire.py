"""The control port's bytes: bounded lines, strict replies, authentication."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import LimitExceeded, RemoteProtocolError
from stemns_plugin.wire import (
    MAX_LINE,
    LineSplitter,
    Reply,
    ReplyAssembler,
    SafeCookie,
    command,
    escape,
    parse_methods,
    password_command,
    unescape,
)


def replies(data: bytes) -> list[Reply]:
    assembler, splitter = ReplyAssembler(), LineSplitter()
    found = [assembler.feed(line) for line in splitter.feed(data)]
    return [reply for reply in found if reply is not None]


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"\r\n" not in b and b[-1:] != b"\r")))
def test_lines_arrive_whole_however_the_bytes_do(lines: list[bytes]) -> None:
    data = b"".join(line + b"\r\n" for line in lines)
    single = LineSplitter()
    assert LineSplitter().feed(data) == lines
    assert [line for i in range(len(data)) for line in single.feed(data[i : i + 1])] == lines


def test_a_line_without_end_is_not_kept() -> None:
    splitter = LineSplitter()
    splitter.feed(b"a" * MAX_LINE)
    with pytest.raises(LimitExceeded):
        splitter.feed(b"a")
    with pytest.raises(LimitExceeded):
        LineSplitter().feed(b"a" * (MAX_LINE + 1) + b"\r\n")


def test_replies_of_every_form() -> None:
    assert replies(b"250 OK\r\n552 Unknown stream\r\n") == [
        Reply(250, (b"OK",)),
        Reply(552, (b"Unknown stream",)),
    ]
    assert replies(b"250-a=1\r\n250 OK\r\n") == [Reply(250, (b"a=1", b"OK"))]
    assert replies(b"250+x=\r\n1 NEW\r\n..dot\r\n250 OK\r\n.\r\n250 OK\r\n") == [
        Reply(250, (b"x=", b"1 NEW", b".dot", b"250 OK", b"OK"))
    ]
    assert Reply(250, ()).is_ok
    assert not Reply(551, ()).is_ok


@pytest.mark.parametrize("line", [b"", b"25", b"650 STREAM 1 NEW", b"hello", b"250_x", b"abc d"])
def test_what_is_no_reply_ends_the_conversation(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ReplyAssembler().feed(line)


def test_a_reply_without_end_is_not_kept() -> None:
    assembler = ReplyAssembler()
    assembler.feed(b"250+x=")
    for _ in range(1000):
        assembler.feed(b"x" * 1000)
    with pytest.raises(LimitExceeded):
        assembler.feed(b"x" * 100_000)


@pytest.mark.parametrize(
    "word", ["", "a b", "a\r\nSIGNAL HALT", "a\nb", "caf\xe9", "a\0b", "\x7f", "a\tb"]
)
def test_a_command_cannot_be_smuggled_in(word: str) -> None:
    with pytest.raises(ValueError, match="control command"):
        command("REDIRECTSTREAM", "1", word)


def test_a_command_is_one_line() -> None:
    assert command("ATTACHSTREAM", "1", "0") == b"ATTACHSTREAM 1 0\r\n"


@given(st.binary())
def test_escapes_are_undone(text: bytes) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert all(32 <= byte < 127 for byte in escaped)


def test_escapes_as_tor_writes_them() -> None:
    assert unescape(rb"a b\"c\'d\\e\303\251\377\n\tz") == b"a b\"c'd\\e\xc3\xa9\xff\n\tz"


def test_methods() -> None:
    line = b'AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/a \\"b\\"/c"'
    methods = parse_methods(Reply(250, (b"PROTOCOLINFO 1", line, b"OK")))
    assert methods.names == {b"COOKIE", b"SAFECOOKIE"}
    assert methods.cookie_file == b'/run/a "b"/c'
    assert parse_methods(Reply(250, (b"AUTH METHODS=NULL",))).cookie_file is None
    with pytest.raises(RemoteProtocolError):
        parse_methods(Reply(250, (b"OK",)))


def _server(cookie: bytes, both: bytes) -> bytes:
    key = b"Tor safe cookie authentication server-to-controller hash"
    return hmac.new(key, cookie + both, hashlib.sha256).hexdigest().encode()


def test_the_cookie_is_proven_and_not_shown() -> None:
    cookie, ours, theirs = b"c" * 32, b"n" * 32, b"s" * 32
    proof = SafeCookie(cookie, ours)
    assert proof.challenge() == b"AUTHCHALLENGE SAFECOOKIE " + ours.hex().encode() + b"\r\n"
    nonce = theirs.hex().upper().encode()
    good = b"AUTHCHALLENGE SERVERHASH=%s SERVERNONCE=%s" % (_server(cookie, ours + theirs), nonce)
    answer = proof.answer(Reply(250, (good,)))
    assert answer.startswith(b"AUTHENTICATE ")
    assert cookie.hex().encode() not in answer
    bad = b"AUTHCHALLENGE SERVERHASH=%s SERVERNONCE=%s" % (_server(b"x" * 32, ours + theirs), nonce)
    with pytest.raises(RemoteProtocolError, match="does not know"):
        proof.answer(Reply(250, (bad,)))
    with pytest.raises(RemoteProtocolError, match="refused"):
        proof.answer(Reply(513, (good,)))
    with pytest.raises(RemoteProtocolError, match="refused"):
        proof.answer(Reply(250, (b"OK",)))


def test_passwords() -> None:
    assert password_command('a "b"\\') == b'AUTHENTICATE "a \\"b\\"\\\\"\r\n'
    with pytest.raises(ValueError, match="printable"):
        password_command("a\r\nSIGNAL HALT")
