"""The control protocol's bytes: bounded lines, strict replies, commands of one line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from isoproxy.tor.control.wire import (
    MAX_LINE,
    MAX_REPLY,
    ControlReply,
    LineSplitter,
    ReplyAssembler,
    command,
    quote,
    unquote,
)


def replies(data: bytes) -> list[ControlReply]:
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
        ControlReply(250, (b"OK",)),
        ControlReply(552, (b"Unknown stream",)),
    ]
    assert replies(b"250-a=1\r\n250 OK\r\n") == [ControlReply(250, (b"a=1", b"OK"))]
    assert replies(b"250+x=\r\n1 NEW\r\n..dot\r\n250 OK\r\n.\r\n250 OK\r\n") == [
        ControlReply(250, (b"x=\n1 NEW\n.dot\n250 OK", b"OK"))
    ]
    assert ControlReply(250, ()).is_ok
    assert ControlReply(252, ()).is_ok
    assert not ControlReply(551, ()).is_ok


@pytest.mark.parametrize(
    "line", [b"", b"25", b"HTTP/1.0 400", b"hello", b"250_x", b"abc d", b"\x05\x01"]
)
def test_what_is_no_reply_ends_the_conversation(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ReplyAssembler().feed(line)


def test_a_reply_without_end_is_not_kept() -> None:
    assembler = ReplyAssembler()
    assembler.feed(b"250+x=")
    for _ in range(MAX_REPLY // 60_010):
        assembler.feed(b"x" * 60_000)
    with pytest.raises(LimitExceeded):
        assembler.feed(b"x" * 60_000)


@pytest.mark.parametrize(("first", "second"), [(b"650-a", b"250 OK"), (b"250-a", b"650 STREAM 1")])
def test_a_reply_and_an_event_do_not_mix(first: bytes, second: bytes) -> None:
    assembler = ReplyAssembler()
    assert assembler.feed(first) is None
    with pytest.raises(RemoteProtocolError):
        assembler.feed(second)


def test_events_are_replies_of_their_own() -> None:
    assert replies(b"650 SIGNAL NEWNYM\r\n250 OK\r\n") == [
        ControlReply(650, (b"SIGNAL NEWNYM",)),
        ControlReply(250, (b"OK",)),
    ]


@pytest.mark.parametrize(
    "word", ["", "a b", "a\r\nSIGNAL HALT", "a\nb", "caf\xe9", "a\0b", "\x7f", "a\tb"]
)
def test_a_command_cannot_be_smuggled_in(word: str) -> None:
    with pytest.raises(LocalProtocolError, match="control command"):
        command("REDIRECTSTREAM", "1", word)


def test_a_command_is_one_line() -> None:
    assert command("ATTACHSTREAM", "1", "0") == b"ATTACHSTREAM 1 0\r\n"


@given(st.binary())
def test_a_quoted_string_gives_its_bytes_back(text: bytes) -> None:
    quoted = quote(text)
    assert unquote(quoted) == text
    assert all(32 <= byte < 127 for byte in quoted)


def test_escapes_as_tor_writes_them() -> None:
    assert unquote(rb'"a b\"c\'d\\e\303\251\377\n\tz"') == b"a b\"c'd\\e\xc3\xa9\xff\n\tz"
    assert unquote(rb"plain\n") == rb"plain\n"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_garbage_is_refused_or_waits(lines: list[bytes]) -> None:
    assembler = ReplyAssembler()
    with contextlib.suppress(RemoteProtocolError):
        for line in lines:
            assembler.feed(line)
