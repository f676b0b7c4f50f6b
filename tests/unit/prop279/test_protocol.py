"""Lines of proposal 279: what is read, what is written, what cannot be smuggled in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import RemoteProtocolError
from prop279.protocol import (
    MAX_LINE,
    Cancel,
    Canceled,
    Command,
    Environment,
    Init,
    LineSplitter,
    Resolve,
    Resolved,
    Status,
    Unusable,
    decode_options,
    encode_options,
    parse_answer,
    parse_command,
    write_answer,
    write_command,
)

_words = st.binary(min_size=1, max_size=255).map(lambda b: bytes(33 + x % 94 for x in b))
_queries = st.integers(0, 10**18 - 1)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"RESOLVE 1 a.bit", Resolve(1, b"a.bit")),
        (b"RESOLVE 1 a.bit 6f-12", Resolve(1, b"a.bit", b"6f-12")),
        (b"RESOLVE  1  a.bit  id  and more", Resolve(1, b"a.bit", b"id")),
        (b"CANCEL 7", Cancel(7)),
        (b"CANCEL 7 why", Cancel(7)),
        (b"RESOLVE 5", Unusable(5)),
        (b"RESOLVE 5 caf\xe9.bit", Unusable(5)),
        (b"RESOLVE 5 " + b"a" * 256, Unusable(5)),
        (b"RESOLVE 5 a.bit " + b"i" * 256, Unusable(5)),
        (b"RESOLVE 5 a\tb.bit", Unusable(5)),
        (b"RESOLVE 5 a.bit" + b" " * 1000 + b"6f-1234567"[: MAX_LINE - 1015], Unusable(5)),
        (b"RESOLVE x a.bit", None),
        (b"RESOLVE -1 a.bit", None),
        (b"RESOLVE 1234567890123456789 a.bit", None),
        (b"RESOLVE", None),
        (b"CANCEL", None),
        (b"", None),
        (b"   ", None),
        (b"resolve 1 a.bit", None),
        (b"PREFETCH 1 a.bit", None),
    ],
)
def test_commands(line: bytes, command: Command | None) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"INIT 1 0", Init(b"1", 0)),
        (b'INIT 1 2 "no such file"', Init(b"1", 2, b"no such file")),
        (b"RESOLVED 4 0 x.onion", Resolved(4, 0, b"x.onion")),
        (b'RESOLVED 4 3 "a.bit is not registered"', Resolved(4, 3, b"a.bit is not registered")),
        (b'RESOLVED 4 1 "say \\"no\\" \\\\"', Resolved(4, 1, b'say "no" \\')),
        (b"RESOLVED 4 0", Resolved(4, 0, b"")),
        (b"CANCELED 4", Canceled(4)),
        (b"RESOLVED 4 -1 x", None),
        (b"RESOLVED x 0 x", None),
        (b"INIT 1", None),
        (b"INIT 1 x", None),
        (b"HELLO 1 2 3", None),
        (b"RESOLVED", None),
        (b"", None),
    ],
)
def test_answers(line: bytes, answer: object) -> None:
    assert parse_answer(line) == answer


@given(_queries, _words, st.none() | _words)
def test_what_is_written_is_read(query: int, name: bytes, isolation: bytes | None) -> None:
    for command in (Resolve(query, name, isolation), Cancel(query)):
        assert parse_command(write_command(command)[:-1]) == command
    assert parse_answer(write_answer(Canceled(query))[:-1]) == Canceled(query)


@given(_queries, st.integers(0, 4), st.binary(max_size=400))
def test_an_answer_is_one_line_whatever_it_says(query: int, status: int, text: bytes) -> None:
    answer = Resolved(query, status, text)
    try:
        line = write_answer(answer)
    except ValueError:
        assert status == Status.SUCCESS
        return
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    read = parse_answer(line[:-1])
    assert isinstance(read, Resolved)
    assert (read.query, read.status) == (query, status)


@pytest.mark.parametrize("name", [b"a b", b"a\nRESOLVE 2 b", b"a\rb", b"", b"a" * 256, b"\xff"])
def test_a_command_cannot_be_smuggled_in(name: bytes) -> None:
    with pytest.raises(ValueError, match="RESOLVE"):
        write_command(Resolve(1, name))
    with pytest.raises(ValueError, match="RESOLVE"):
        write_command(Resolve(1, b"a.bit", name))


@pytest.mark.parametrize("result", [b"", b"a b", b"a\nRESOLVED 2 0 b", b"\x00"])
def test_a_result_is_one_word(result: bytes) -> None:
    with pytest.raises(ValueError, match="one word"):
        write_answer(Resolved(1, 0, result))


def test_init_with_and_without_a_message() -> None:
    assert write_answer(Init(b"1", 0)) == b"INIT 1 0\n"
    assert write_answer(Init(b"1", 1, b"bad\noption")) == b'INIT 1 1 "bad?option"\n'


@given(st.lists(st.binary(max_size=60).filter(lambda b: b"\n" not in b), max_size=8))
def test_lines_arrive_whole_however_the_bytes_do(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    whole, single = LineSplitter(), LineSplitter()
    expected = [line.removesuffix(b"\r") for line in lines]
    assert whole.feed(data) == expected
    assert [line for i in range(len(data)) for line in single.feed(data[i : i + 1])] == expected


@pytest.mark.parametrize("piece", [1, 7, 1000, 5000])
def test_a_line_without_end_costs_bounded_memory_and_is_refused(piece: int) -> None:
    splitter = LineSplitter()
    data = b"RESOLVE 9 " + b"a" * 4000 + b"\nCANCEL 9\n" + b"b" * 100_000
    lines = []
    for at in range(0, len(data), piece):
        lines += splitter.feed(data[at : at + piece])
        assert len(splitter._rest) <= MAX_LINE
    assert [parse_command(line) for line in lines] == [Unusable(9), Cancel(9)]


@pytest.mark.parametrize("piece", [1, 1000, 5000])
def test_a_carriage_return_where_a_line_is_cut_does_not_hide_the_cut(piece: int) -> None:
    head = b"RESOLVE 9 a.bit"
    data = head + b" " * (MAX_LINE - len(head) - 6) + b"6f-12\r34\n"
    splitter = LineSplitter()
    lines = [
        line for at in range(0, len(data), piece) for line in splitter.feed(data[at : at + piece])
    ]
    assert [parse_command(line) for line in lines] == [Unusable(9)]


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_options_survive_their_escapes(options: dict[str, str]) -> None:
    assert decode_options(encode_options(options)) == options


def test_options_as_the_specification_writes_them() -> None:
    assert decode_options("timeout=5;url=https://bananacake.com") == {
        "timeout": "5",
        "url": "https://bananacake.com",
    }
    assert encode_options({"url": "https://a"}) == "url=https\\://a"
    assert decode_options("a=1;") == {"a": "1"}


@pytest.mark.parametrize("text", ["a", "=1", "a=1\\", ";;", "a=1;;b=2", "\\"])
def test_malformed_options_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_options(text)


def test_the_environment() -> None:
    environment = Environment(("1",), Path("/var/lib/x"), {"a": "b;c"})
    assert Environment.read(environment.variables()) == environment
    assert Environment.read({}).is_compatible
    assert Environment.read({"TOR_NS_PROTO_VERSION": "1a,1,2,4B"}).is_compatible
    assert not Environment.read({"TOR_NS_PROTO_VERSION": "1a,2"}).is_compatible
    assert "TOR_NS_STATE_LOCATION" not in Environment().variables()
