from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from isoproxy.namecoin.electrum.wire import (
    MAX_LINE,
    MAX_OUTSTANDING,
    MAX_PARTS,
    MAX_TEXT,
    MAX_UNASKED,
    Event,
    Notification,
    Refusal,
    Response,
    Wire,
)


def asked(count: int = 1, max_line: int = 1000) -> Wire:
    wire = Wire(max_line)
    for _ in range(count):
        wire.request("server.ping", [])
    return wire


def test_a_request_is_one_line() -> None:
    wire = Wire()
    number, line = wire.request("a.b", ["x\n", 1])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "jsonrpc": "2.0",
        "id": number,
        "method": "a.b",
        "params": ["x\n", 1],
    }
    assert wire.request("a.b", [])[0] != number
    assert wire.outstanding == 2


def test_answers_in_any_order_with_padding_and_notifications() -> None:
    wire = asked(3)
    events = wire.receive(
        b'{"id":2,"result":[1]      }\n'
        b'{"method":"blockchain.relayfee","params":[]}\r\n'
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-101,"message":"d/secret"},"result":null}\n'
        b'{"method":"x"}\n'
        b'{"id":3,"result":null}\n'
    )
    assert events == [
        Response(2, [1]),
        Notification("blockchain.relayfee", []),
        Refusal(1, -101),
        Notification("x", []),
        Response(3, None),
    ]
    assert wire.outstanding == 0


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(1, 7))
def test_in_pieces_of_any_size_the_events_are_the_same(results: list[int], size: int) -> None:
    blob = b"".join(
        json.dumps({"id": number, "result": result}).encode() + b" \n"
        for number, result in enumerate(results, 1)
    )
    wire, events = asked(len(results)), list[Event]()
    for at in range(0, len(blob), size):
        events += wire.receive(blob[at : at + size])
    assert events == [Response(number, result) for number, result in enumerate(results, 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"id":1,"result":NaN}',
        b'{"id":1,"result":"\xff"}',
        b'{"id":1,"result":' + b"9" * 5000 + b"}",
        b'{"id":2,"result":1}',
        b'{"id":true,"result":1}',
        b'{"id":1.0,"result":1}',
        b'{"id":null,"error":{"code":1}}',
        b'{"id":1}',
        b'{"method":1}',
        b'{"method":"x","params":{}}',
    ],
)
def test_what_is_no_answer_is_a_breach(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        asked(max_line=200_000).receive(line + b"\n")


def test_a_request_is_answered_once() -> None:
    wire = asked()
    wire.receive(b'{"id":1,"result":1}\n')
    with pytest.raises(RemoteProtocolError, match="not asked"):
        wire.receive(b'{"id":1,"result":1}\n')


@pytest.mark.parametrize("error", [b"7", b'{"message":"x"}', b'{"code":"1"}', b"[]"])
def test_an_error_of_any_shape_refuses(error: bytes) -> None:
    assert asked().receive(b'{"id":1,"error":%s}\n' % error) == [Refusal(1, 0)]


def test_a_line_beyond_the_limit_is_refused_before_it_ends() -> None:
    wire = asked(max_line=100)
    wire.receive(b"x" * 100)
    with pytest.raises(LimitExceeded):
        wire.receive(b"x")
    with pytest.raises(LimitExceeded):
        asked(max_line=100).receive(b" " * 101 + b"\n")


@pytest.mark.parametrize("piece", [1, 300, 5000])
def test_a_notification_beyond_the_limit_is_passed_over_and_not_kept(piece: int) -> None:
    wire, events = asked(max_line=1000), []
    long = b'{"jsonrpc":"2.0","method":"x","params":["%s"]}\n' % (b"0" * 4000)
    data = b'{"method":"y"}\n' + long + b'{"id":1,"result":1}\n' + long[:-1]
    for at in range(0, len(data), piece):
        events += wire.receive(data[at : at + piece])
        assert len(wire._buffer) <= 1000
    assert events == [Notification("y", []), Response(1, 1)]


@pytest.mark.parametrize("part", [b"[]", b'{"a":{}}', b"0"])
def test_a_line_of_very_many_parts_is_refused_unread(part: bytes) -> None:
    line = b'{"id":1,"result":[%s]}\n'
    fits, too_much = MAX_PARTS // 5, MAX_PARTS + 1
    (answer,) = asked(max_line=1 << 20).receive(line % b",".join([part] * fits))
    assert isinstance(answer, Response)
    with pytest.raises(LimitExceeded, match="parts"):
        asked(max_line=1 << 20).receive(line % b",".join([part] * too_much))


@pytest.mark.parametrize("size", [1 << 19, 1 << 22])
@pytest.mark.parametrize("mark", [b",", b"[", b"{", b"\\n"])
def test_what_takes_long_to_read_is_as_rare_in_a_long_line_as_in_a_short_one(
    mark: bytes, size: int
) -> None:
    def line(count: int) -> bytes:
        text = mark * count + b"0" * (size - len(mark) * count)
        return b'{"id":1,"result":"%s"}\n' % text

    assert asked(max_line=1 << 23).receive(line(MAX_PARTS - 10))
    with pytest.raises(LimitExceeded, match="parts"):
        asked(max_line=1 << 23).receive(line(MAX_PARTS + 1))


def test_a_long_line_is_copied_once_and_its_padding_never() -> None:
    wire, size = asked(max_line=1 << 23), 4_000_000
    wire.receive(b'{"id":1,"result":"' + b"0" * size + b'"}' + b" " * size)
    tracemalloc.start()
    wire.receive(b"\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * size  # the buffer grows by that byte; then the text, and the string in it


def test_only_padding_makes_a_line_as_long_as_a_line_may_be() -> None:
    wire, text = asked(max_line=MAX_LINE), b'{"id":1,"result":"%s"}'
    assert wire.receive(text % b"" + b" " * (MAX_LINE - 50) + b"\n") == [Response(1, "")]
    with pytest.raises(LimitExceeded):
        asked(max_line=MAX_LINE).receive(text % (b"0" * MAX_TEXT) + b"\n")


def test_the_limit_is_per_line() -> None:
    wire = asked(2, max_line=30)
    assert len(wire.receive(b'{"id":1,"result":1}\n{"id":2,"result":1}\n')) == 2


def test_too_many_or_too_long_requests_are_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        asked(MAX_OUTSTANDING + 1)
    with pytest.raises(LocalProtocolError):
        Wire().request("x", ["y" * 200_000])


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_a_clear_error(data: bytes) -> None:
    wire = asked()
    try:
        wire.receive(data + b"\n")
    except RemoteProtocolError as error:
        assert not any(word in str(error) for word in ("secret", "d/"))


def test_a_server_that_tells_what_nobody_asked_for_is_cut_off_after_a_few() -> None:
    """Before the rest of what it sent is read: it costs a thousand times less to send."""
    line = b'{"method":"x"}\n'
    wire = Wire()
    assert len(wire.receive(line * MAX_UNASKED)) == MAX_UNASKED
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        wire.receive(line)
    tip = b'{"method":"blockchain.headers.subscribe","params":[]}\n'
    assert len(Wire().receive(tip * 100)) == 100


def test_a_notification_without_end_is_a_breach() -> None:
    wire = Wire(max_line=1000)
    wire.receive(b'{"method":"blockchain.headers.subscribe","params":["')
    for _ in range(MAX_LINE // 1_000_000 - 1):
        wire.receive(b"0" * 1_000_000)
    with pytest.raises(RemoteProtocolError, match="no end"):
        wire.receive(b"0" * 1_000_000)
