"""HTTP for looking: who is answered, what every answer carries, what never gets through."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.observe.http_get import (
    CONTENT_SECURITY_POLICY,
    HEADERS,
    MAX_HEAD,
    Ended,
    Hosts,
    HttpGet,
    Response,
    judge,
)

PATHS = frozenset({"/", "/status.json"})
TCP, UNIX = Hosts(9252), Hosts(None)


def request(method: str = "GET", target: str = "/", **headers: str) -> h11.Request:
    named = {"host": "localhost:9252", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return h11.Request(method=method, target=target, headers=list(named.items()))


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(), 200),
        (request("HEAD"), 200),
        (request(target="/status.json"), 200),
        (request(content_length="0"), 200),
        (request(sec_fetch_site="same-origin"), 200),
        (request(sec_fetch_site="none"), 200),
        # a page of another site, and one of another port of this machine
        (request(sec_fetch_site="cross-site"), 403),
        (request(sec_fetch_site="same-site"), 403),
        # a name that somebody else may point here
        (request(host="attacker.example:9252"), 421),
        (request(host="localhost.attacker.example:9252"), 421),
        (request(host="127.0.0.1.nip.example:9252"), 421),
        (request(host="attacker.example", sec_fetch_site="same-origin"), 421),
        (request(host=""), 421),
        # whatever could change something
        (request("POST"), 405),
        (request("PUT"), 405),
        (request("DELETE"), 405),
        (request("OPTIONS"), 405),
        (request("TRACE"), 405),
        (request("get"), 405),
        (request(content_length="5"), 413),
        (request(transfer_encoding="chunked"), 400),
        (request(upgrade="websocket"), 400),
        # only what there is, to the letter
        (request(target="/status.json?callback=x"), 404),
        (request(target="/../etc/passwd"), 404),
        (request(target="//"), 404),
        (request(target="http://localhost:9252/"), 404),
        (request(target="/STATUS.JSON"), 404),
    ],
)
def test_who_is_answered(asked: h11.Request, status: int) -> None:
    refused = judge(asked, TCP, PATHS)
    assert (200 if refused is None else refused.status) == status


@pytest.mark.parametrize(
    ("host", "over_tcp", "over_unix"),
    [
        ("localhost:9252", True, True),
        ("LOCALHOST:9252", True, True),
        ("127.0.0.1:9252", True, True),
        ("127.8.9.1:9252", True, True),
        ("[::1]:9252", True, True),
        ("localhost:80", False, True),  # the user's end of ssh -L
        ("localhost", False, True),  # port 80
        ("192.0.2.1:9252", False, False),
        ("0.0.0.0:9252", False, False),
        ("[::]:9252", False, False),
        ("[::ffff:127.0.0.1]:9252", False, False),
        ("127.1:9252", False, False),
        ("0x7f000001:9252", False, False),
        ("localhost.:9252", False, False),
        ("localhost:9252 ", False, False),
        ("user@localhost:9252", False, False),
        ("localhost:009252", False, False),
        ("999.1.1.1:9252", False, False),
    ],
)
def test_hosts_that_are_ours(host: str, over_tcp: bool, over_unix: bool) -> None:
    assert (TCP.include(host.encode()), UNIX.include(host.encode())) == (over_tcp, over_unix)


def test_two_hosts_or_none_are_refused() -> None:
    http = HttpGet(TCP, PATHS)
    http.receive(b"GET / HTTP/1.1\r\nHost: localhost:9252\r\nHost: localhost:9252\r\n\r\n")
    asked = http.next_request()
    assert isinstance(asked, Response)
    assert asked.status == 400
    assert judge(h11.Request(method="GET", target="/", headers=[], http_version="1.0"), TCP, PATHS)


def test_no_inline_script_no_other_host_no_frame() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert set(rules.values()) == {"'none'", "'self'", "'script'"}
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def ask(http: HttpGet, text: str) -> str:
    """The whole answer to one request."""
    http.receive(text.encode())
    asked = http.next_request()
    assert asked is not None
    assert not isinstance(asked, Ended)
    made = asked if isinstance(asked, Response) else Response("text/html", b"BODY")
    return http.answer(made)[0].decode()


@pytest.mark.parametrize(
    "text",
    [
        "GET / HTTP/1.1\r\nHost: [::1]:9252\r\n\r\n",
        "GET /marked HTTP/1.1\r\nHost: localhost:9252\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: marked.example\r\nContent-Length: 9\r\n\r\n",
        "marked\r\n\r\n",
        "GET / HTTP/3.7\r\nHost: marked\r\n\r\n",
    ],
)
def test_every_answer_carries_the_headers_and_no_byte_of_the_request(text: str) -> None:
    answer = ask(HttpGet(TCP, PATHS), text)
    for name, value in HEADERS:
        assert f"\r\n{name}: {value}\r\n".lower() in answer.lower()
    assert "marked" not in answer


def test_requests_follow_one_another_and_head_has_no_body() -> None:
    http = HttpGet(TCP, PATHS)
    head = ask(http, "HEAD / HTTP/1.1\r\nHost: localhost:9252\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert head.endswith("\r\n\r\n")
    assert "content-length: 4\r\n" in head.lower()
    assert ask(http, "GET / HTTP/1.1\r\nHost: localhost:9252\r\n\r\n").endswith("BODY")
    http.receive(b"")
    assert http.next_request() is Ended.ENDED


def test_what_is_no_request_after_a_head_is_refused_with_a_body() -> None:
    http = HttpGet(TCP, PATHS)
    ask(http, "HEAD / HTTP/1.1\r\nHost: localhost:9252\r\n\r\n")
    refusal = ask(http, "\x01\r\n\r\n")
    assert refusal.startswith("HTTP/1.1 400 ")
    assert not refusal.endswith("\r\n\r\n")


def test_a_refusal_is_the_last_answer() -> None:
    http = HttpGet(TCP, PATHS)
    http.receive(b"POST / HTTP/1.1\r\nHost: localhost:9252\r\nContent-Length: 99999\r\n\r\n")
    asked = http.next_request()
    assert isinstance(asked, Response)
    data, goes_on = http.answer(asked)
    assert b"allow: get, head" in data.lower()
    assert not goes_on


def test_a_head_without_end_is_refused_at_its_bound() -> None:
    http = HttpGet(TCP, PATHS)
    http.receive(b"GET / HTTP/1.1\r\nHost: localhost:9252\r\n")
    taken = 0
    while (asked := http.next_request()) is None:
        http.receive(b"X: " + b"y" * 1000 + b"\r\n")
        taken += 1005
    assert isinstance(asked, Response)
    assert asked.status == 431
    assert taken < MAX_HEAD + 2000


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_whatever_comes_is_refused_or_waited_for(pieces: list[bytes]) -> None:
    http = HttpGet(TCP, PATHS)
    for piece in (*filter(None, pieces), b""):
        http.receive(piece)
        asked = http.next_request()
        if asked is None:
            continue
        assert not isinstance(asked, str)
        if isinstance(asked, Response):
            assert not http.answer(asked)[1]
        return
