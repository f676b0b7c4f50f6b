"""The witness: what it reads, what it concludes, and that tor's own isolation bears it out."""

from __future__ import annotations

import concurrent.futures
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.dial import Refused, dial
from tests.kit.servers import EchoServer, WebServer, closed_port
from tests.kit.tornet import Node, TorNetwork
from tests.kit.witness import Record, Stream, Witness, keywords, unquote


def _quote(value: bytes) -> str:
    """As tor's esc_for_log does it."""
    named = {0x22: '\\"', 0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    return (
        '"'
        + "".join(named.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in value)
        + '"'
    )


@given(st.binary())
def test_unquote_undoes_what_tor_does(value: bytes) -> None:
    assert unquote(_quote(value)) == value


def test_unquote_of_a_line_from_a_real_tor() -> None:
    said = r'''"a b\"c\'d\\e\303\251\377\n\tz= PURPOSE=X"'''
    assert unquote(said) == b"a b\"c'd\\e\xc3\xa9\xff\n\tz= PURPOSE=X"


@pytest.mark.parametrize("text", ["", '"', "a", '"a', 'a"', '"a"b"', '"\\"'])
def test_unquote_refuses_what_is_not_one_string(text: str) -> None:
    with pytest.raises(ValueError, match="quote"):
        unquote(text)


def test_a_quoted_value_cannot_inject_a_keyword() -> None:
    line = r'SOCKS_USERNAME="x\" PURPOSE=EVIL" PURPOSE=USER REASON='
    assert keywords(line) == {
        "SOCKS_USERNAME": r'"x\" PURPOSE=EVIL"',
        "PURPOSE": "USER",
        "REASON": "",
    }


@pytest.mark.parametrize("text", ["no keyword", "A=b c", 'A="b', 'A="b"c', "a=b", "=b"])
def test_keywords_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match="keywords"):
        keywords(text)


@given(st.text(st.characters(max_codepoint=255)))
def test_keywords_ends_or_refuses(text: str) -> None:
    try:
        keywords(text)
    except ValueError:
        return


def _witness_of(lines: list[str]) -> Record:
    record = Record()
    for line in lines:
        record.take(line)
    return record


def _line(number: int, circuit: int, user: str) -> list[str]:
    return [
        f"650 STREAM {number} NEW 0 a.test:80 SOURCE_ADDR=127.0.0.1:5 PURPOSE=USER"
        f' SOCKS_USERNAME="{user}" CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=0 SESSION_GROUP=-6',
        f"650 STREAM {number} SENTCONNECT {circuit} a.test:80",
        f"650 STREAM {number} REMAP {circuit} 127.1.2.3:80 SOURCE=EXIT",
    ]


def test_two_tuples_on_one_circuit_are_found() -> None:
    witness = _witness_of([*_line(1, 5, "a"), *_line(2, 5, "b"), *_line(3, 6, "b")])
    streams = witness.streams()
    assert witness.mixed(streams) == {5: {(b"a", None), (b"b", None)}}
    assert witness.spread(streams) == {(b"b", None): {5, 6}}
    with pytest.raises(AssertionError, match="several tuples"):
        witness.assert_isolated(streams)
    with pytest.raises(AssertionError, match="several circuits"):
        witness.assert_shared(streams)


def test_a_failed_attempt_on_another_tuples_circuit_counts() -> None:
    retried = [
        *_line(1, 5, "a"),
        "650 STREAM 1 DETACHED 5 a.test:80 REASON=END",
        "650 STREAM 1 SENTCONNECT 6 a.test:80",
    ]
    witness = _witness_of([*retried, *_line(2, 5, "b")])
    assert witness.mixed(witness.streams()) == {5: {(b"a", None), (b"b", None)}}


def test_legs_of_one_conflux_set_are_one_circuit() -> None:
    legs = [
        f"650 CIRC {n} BUILT $AA~x,$BB~y PURPOSE=CONFLUX_LINKED CONFLUX_ID=15F7" for n in (5, 6)
    ]
    witness = _witness_of([*legs, *_line(1, 5, "a"), *_line(2, 6, "b")])
    assert set(witness.mixed(witness.streams())) == {"15F7"}


def test_nothing_attached_proves_nothing() -> None:
    witness = _witness_of([_line(1, 5, "a")[0]])
    with pytest.raises(AssertionError, match="no stream"):
        witness.assert_isolated(witness.streams())
    with pytest.raises(AssertionError, match="no stream"):
        witness.assert_shared([])


def test_the_first_event_names_the_target_and_tor_s_quirk_is_understood() -> None:
    quirk = "650 STREAM 1 CLOSED 5 127.1.2.3:80 REASON= UNKNOWN_264"
    (stream,) = _witness_of([*_line(1, 5, "a"), quirk]).streams()
    assert (stream.host, stream.port, stream.source) == ("a.test", 80, "127.0.0.1:5")
    assert (stream.reason, stream.closed, stream.circuits) == ("UNKNOWN_264", True, [5])


def test_a_line_that_does_not_parse_is_kept() -> None:
    witness = _witness_of(["650 STREAM 40 CLOSED 0 a b.test:80 REASON=SOCKS_PROTOCOL"])
    assert len(witness.malformed) == 1
    assert witness.streams() == []


# -- against the real tor


def _curl(client: Node, user: str, url: str) -> str:
    host, port = client.socks
    proxy = f"socks5h://{user}:x@{host}:{port}"
    done = subprocess.run(
        ["curl", "-sS", "--proxy", proxy, url], check=True, capture_output=True, timeout=60
    )
    return done.stdout.decode()


def test_same_user_one_circuit_two_users_two(tor_network: TorNetwork) -> None:
    client = tor_network.client
    with WebServer(tor_network.server_ip, tor_network.exit_of) as web, Witness(client) as witness:
        start = witness.mark()
        answers = [_curl(client, user, web.url(name="w.test")) for user in ("a", "b", "a", "b")]
        streams = witness.wait_for(4, lambda stream: stream.closed, after=start)
        witness.assert_isolated(streams)
        witness.assert_shared(streams)
        assert len(witness.by_carrier(streams)) == 2
        assert [s.host for s in streams] == ["w.test"] * 4
        assert {s.username for s in streams} == {b"a", b"b"}
        seen_by_server = {answer.split()[0].removeprefix("exit=") for answer in answers}
        assert witness.exits(streams) == seen_by_server


def test_binary_credentials_arrive_whole(tor_network: TorNetwork) -> None:
    user, password = bytes(range(1, 256)), b"\"'\\ \r\n\x7f\x80 X=1"
    with EchoServer(tor_network.server_ip) as echo, Witness(tor_network.client) as witness:
        start = witness.mark()
        _exchange(tor_network.client, (echo.host, echo.port), user, password)
        (stream,) = witness.wait_for(1, lambda stream: stream.closed, after=start)
        assert stream.credentials == (user, password)
        assert witness.streams(username=user, password=password, port=echo.port) == [stream]


def test_two_hundred_streams_of_twenty_tuples(tor_network: TorNetwork) -> None:
    """All at once, and told apart by the names they asked for, not by their credentials."""
    with (
        tor_network.temporary_client() as client,
        EchoServer(tor_network.server_ip) as echo,
        Witness(client) as witness,
    ):
        jobs = [(f"user{n % 20}".encode(), f"n{n % 20}.test") for n in range(200)]
        for user, host in jobs[:20]:  # one each first: later ones find its circuit
            _exchange(client, (host, echo.port), user, b"")
        with concurrent.futures.ThreadPoolExecutor(25) as pool:
            for _ in pool.map(
                lambda job: _exchange(client, (job[1], echo.port), job[0], b""), jobs[20:]
            ):
                pass
        streams = witness.wait_for(200, lambda stream: stream.closed)
        assert len(streams) == 200
        assert all(stream.succeeded for stream in streams)
        witness.assert_isolated(streams, _by_host)
        witness.assert_shared(streams, _by_host)
        assert len(witness.by_carrier(streams)) == 20


def _by_host(stream: Stream) -> str:
    return stream.host


def test_a_client_with_conflux_is_understood(tor_network: TorNetwork) -> None:
    with (
        tor_network.temporary_client(conflux=True) as client,
        EchoServer(tor_network.server_ip) as echo,
        Witness(client) as witness,
    ):
        # tor links its first conflux sets a moment after it has bootstrapped
        deadline = time.monotonic() + 30
        while "CONFLUX_LINKED" not in client.ctl.getinfo("circuit-status"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for user in (b"a", b"b", b"c"):
            _exchange(client, ("conflux.test", echo.port), user, b"")
        streams = witness.wait_for(3, lambda stream: stream.closed)
        witness.assert_isolated(streams)
        sets = {c for c in witness.by_carrier(streams) if isinstance(c, str)}
        assert sets
        legs = client.ctl.getinfo("circuit-status")
        assert all(legs.count(f"CONFLUX_ID={name}") == 2 for name in sets)


def test_a_retried_stream_shows_every_circuit(tor_network: TorNetwork) -> None:
    with closed_port(tor_network.server_ip) as port, Witness(tor_network.client) as witness:
        start = witness.mark()
        with pytest.raises(Refused, match="reply 1"):
            _exchange(tor_network.client, ("gone.test", port), b"retry", b"")
        (stream,) = witness.wait_for(1, lambda stream: stream.closed, after=start)
        assert len(stream.circuits) == 3
        assert "FAILED" in stream.states


def _exchange(client: Node, target: tuple[str, int], user: bytes, password: bytes) -> None:
    """One echo through a client's SocksPort."""
    with dial(client.socks, *target, user=user, password=password) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
