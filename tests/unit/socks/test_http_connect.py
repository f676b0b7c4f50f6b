"""HTTP CONNECT, its isolation headers, and browsers that lost their way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, LimitExceeded, RemoteProtocolError
from isoproxy.socks.http_connect import MAX_HEAD, HttpConnect

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
    assert http.succeed().startswith(b"HTTP/1.0 200 OK\r\n")
    assert http.succeed().endswith(b"\r\n\r\n")


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


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize(
    "rest",
    [
        b" / HTTP/1.1\r\nHost: localhost:9250\r\n\r\n",
        b" / HTTP/1.1\r\nHost: [::1]:9250\r\n\r\n",
        b" / HTTP/1.0\r\n\r\n",
        b" http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ],
)
def test_a_browser_sees_what_this_port_is(method: bytes, rest: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect().receive(method + rest)
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


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
@pytest.mark.parametrize("host", [b"a.test", b"a.test:9250", b"192.0.2.1", b"[", b"\xff", b""])
def test_a_page_whose_name_leads_here_learns_nothing(method: bytes, host: bytes) -> None:
    """DNS rebinding; the http-connect specification wants the Host of all but CONNECT looked at."""
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect().receive(method + b" / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert caught.value.reply == b""


def test_a_head_that_nobody_read_whole_is_refused_without_our_name() -> None:
    with pytest.raises(LimitExceeded) as caught:
        HttpConnect().receive(b"GET /" + b"x" * 9000)
    assert b"isoproxy" not in caught.value.reply
    assert b"tor" not in caught.value.reply.lower().replace(b"cache-control: no-store", b"")


@pytest.mark.parametrize("target", [b"*", b"a.test:80"])
def test_options_tells_what_is_here(target: bytes) -> None:
    """What tor 0.4.9 and Arti answer; the version is ours."""
    http = HttpConnect()
    assert http.receive(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert http.answer is not None
    head = http.answer.decode().split("\r\n")
    assert head[0] == "HTTP/1.0 200 OK"
    assert "Allow: OPTIONS, CONNECT" in head
    assert any(line.startswith("Server: tor/1.0 (isoproxy ") for line in head)
    assert (
        "Tor-Capabilities: Proxy-Authorization Tor-Stream-Isolation X-Tor-Stream-Isolation" in head
    )


def test_what_is_said_to_connect_names_the_way_and_the_failure() -> None:
    http = connect()
    refusal = http.refuse(ErrorKind.ONION_NOT_FOUND)
    for reply in (http.succeed(), refusal):
        assert b"\r\nVia: tor/1.0 tor-network (isoproxy " in reply
        assert b"\r\nTor-Capabilities: " in reply
        assert b"\r\nServer: " not in reply
    assert b"\r\nTor-Request-Failed: isoproxy/onion_not_found\r\n" in refusal
    assert b"Tor-Request-Failed" not in http.succeed()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (ErrorKind.CONNECTION_REFUSED, 403),
        (ErrorKind.EXIT_POLICY, 503),
        (ErrorKind.HOST_UNREACHABLE, 503),
        (ErrorKind.NETWORK_UNREACHABLE, 503),
        (ErrorKind.TTL_EXPIRED, 504),
    ],
)
def test_tors_reasons_have_the_status_of_its_specification(kind: ErrorKind, status: int) -> None:
    assert connect().refuse(kind).startswith(b"HTTP/1.0 %d " % status)


@pytest.mark.parametrize("segment", [1 << 16, 4500, 1000, 7])
@pytest.mark.parametrize(("length", "fits"), [(MAX_HEAD, True), (MAX_HEAD + 1, False)])
def test_a_head_has_one_limit_however_it_is_cut(length: int, fits: bool, segment: int) -> None:
    start, end = b"CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n"
    head = start + b"x" * (length - len(start) - len(end)) + end
    http, refused, done = HttpConnect(), False, False
    try:
        for at in range(0, length, segment):
            done = http.receive(head[at : at + segment])
    except LimitExceeded:
        refused = True
    assert (done, refused) == (fits, not fits)


def test_early_bytes_do_not_count_as_head() -> None:
    http = HttpConnect()
    assert http.receive(PLAIN + b"x" * MAX_HEAD)
    assert len(http.leftover) == MAX_HEAD


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


@pytest.mark.parametrize("scheme", ["NTLM", "ntlm", "Negotiate"])
def test_a_handshake_that_names_nobody_is_no_user_name(scheme: str) -> None:
    """curl --proxy-ntlm opens with the same words for everybody: all would be one identity."""
    opening = f"CONNECT a.test:80 HTTP/1.0\r\nProxy-Authorization: {scheme} TlRMTVNTUAAB\r\n\r\n"
    with pytest.raises(RemoteProtocolError) as caught:
        HttpConnect(require_auth=True).receive(opening.encode())
    assert caught.value.kind is ErrorKind.AUTH_REQUIRED


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
