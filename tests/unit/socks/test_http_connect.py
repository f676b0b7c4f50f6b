"""HTTP CONNECT, its isolation headers, and browsers that lost their way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, LimitExceeded, RemoteProtocolError
from isoproxy.socks.http_connect import HttpConnect

PLAIN = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"


def connect(headers: bytes = b"") -> HttpConnect:
    http = HttpConnect()
    assert http.receive(b"CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    return http


@given(st.integers(1, 80), st.binary(max_size=30))
def test_any_pieces_give_the_same_request(size: int, early: bytes) -> None:
    http = HttpConnect()
    data = PLAIN + early
    done = [http.receive(data[at : at + size]) for at in range(0, len(PLAIN), size)]
    assert done[-1]
    assert not any(done[:-1])
    assert (http.host, http.port) == (b"a.test", 443)
    assert (http.username, http.password) == (None, None)
    last = (len(PLAIN) - 1) // size * size + size
    assert http.leftover == data[:last][len(PLAIN) :]
    assert http.succeed() == b"HTTP/1.0 200 OK\r\n\r\n"


def test_every_combination_of_isolation_headers_is_its_own() -> None:
    combinations = [
        b"",
        b"Proxy-Authorization: Basic dTpw\r\n",
        b"Proxy-Authorization: Basic dTpx\r\n",
        b"X-Tor-Stream-Isolation: one\r\n",
        b"Tor-Stream-Isolation: one\r\n",
        b"X-Tor-Stream-Isolation: one\r\nTor-Stream-Isolation: one\r\n",
        b"X-Tor-Stream-Isolation: two\r\n",
        b"X-Tor-Stream-Isolation: one\r\nProxy-Authorization: Basic dTpw\r\n",
        b"Proxy-Authorization: Basic dTpw\r\nProxy-Authorization: Basic dTpx\r\n",
        b"Proxy-Authorization: Basic dTpx\r\nProxy-Authorization: Basic dTpx\r\n",
        b"X-Tor-Stream-Isolation: one\r\nX-Tor-Stream-Isolation: two\r\n",
        b"X-Tor-Stream-Isolation: two\r\nX-Tor-Stream-Isolation: one\r\n",
    ]
    pairs = {(http.username, http.password) for http in map(connect, combinations)}
    assert len(pairs) == len(combinations)


def test_ipv6_keeps_its_brackets_for_the_target_to_judge() -> None:
    http = HttpConnect()
    assert http.receive(b"CONNECT [::1]:80 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (http.host, http.port) == (b"[::1]", 80)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"OPTIONS"])
def test_a_browser_sees_what_this_port_is(method: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect().receive(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = caught.value.reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 501 Tor is not an HTTP Proxy\r\n")
    assert (b"isoproxy" in body) == (method != b"HEAD")


@pytest.mark.parametrize(
    "target",
    [
        b"a.test",
        b":443",
        b"a.test:",
        b"a.test:0",
        b"a.test:65536",
        b"a.test:x",
        b"/",
        b"a.test:000001234567",
        b"a.test:000001" + b"9" * 5000,
    ],
)
def test_a_target_without_host_and_port_is_refused(target: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect().receive(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert caught.value.reply.startswith(b"HTTP/1.0 400 ")


def test_which_isolation_header_comes_first_says_nothing() -> None:
    x, plain = b"X-Tor-Stream-Isolation: one\r\n", b"Tor-Stream-Isolation: one\r\n"
    assert connect(x + plain).password == connect(plain + x).password


@pytest.mark.parametrize("early", [b"", b"5\r\nhello\r\n", b"no chunk\r\n"])
@pytest.mark.parametrize("contents", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_contents_are_refused(contents: bytes, early: bytes) -> None:
    """They would be taken for the application's own bytes, or those for them."""
    head = b"CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\n" + contents + b"\r\n\r\n"
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect().receive(head + early)
    assert caught.value.kind is ErrorKind.MALFORMED
    assert caught.value.reply.startswith(b"HTTP/1.0 400 ")


def test_announcing_no_contents_is_fine() -> None:
    assert connect(b"Content-Length: 0\r\n").host == b"a.test"


def test_a_head_without_end_is_cut_off() -> None:
    http = HttpConnect()
    with pytest.raises(LimitExceeded) as caught:
        http.receive(b"CONNECT a.test:1 HTTP/1.1\r\nX: " + b"x" * 8192)
    assert caught.value.reply.startswith(b"HTTP/1.0 431 ")


def test_a_listener_may_require_isolation() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect(require_auth=True).receive(PLAIN)
    assert caught.value.kind is ErrorKind.AUTH_REQUIRED
    assert b"Proxy-Authenticate: Basic" in caught.value.reply


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_refusal_is_a_complete_response(kind: ErrorKind) -> None:
    head, _, body = HttpConnect().refuse(kind).partition(b"\r\n\r\n")
    assert head.split(b" ")[0] == b"HTTP/1.0"
    assert b"Content-Length: %d" % len(body) in head


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    http = HttpConnect()
    try:
        http.receive(data)
    except RemoteProtocolError as error:
        assert error.reply.startswith(b"HTTP/1.0 ")
