"""`explain` derives the key that the front end would, and says what it is made of."""

from __future__ import annotations

import os

import pytest

from isoproxy.config import Config, load
from isoproxy.daemon.settings.front import session_rule
from isoproxy.daemon.status.explain import arguments_of, explain
from isoproxy.errors import OperationError
from isoproxy.front.judgement import ClientHandshake, ProxyRequest
from isoproxy.isolation import Isolator, client_of_address, client_of_uid


def configuration(*settings: str) -> Config:
    return load(None, settings).config


@pytest.mark.parametrize(
    "isolate", ["[]", '["SOCKSAuth"]', '["ClientAddr", "DestAddr", "DestPort"]']
)
def test_the_key_is_the_one_that_a_session_gets(isolate: str) -> None:
    config = configuration(f"listener.0.isolate={isolate}")
    isolator = Isolator()
    client = client_of_address("10.0.0.7")
    session = ClientHandshake(session_rule(config, config.listener[0]), isolator, client)
    request = session.receive(
        b"\x05\x01\x02\x01\x05alice\x06secret\x05\x01\x00\x03\x09a.example\x00\x50"
    )
    assert isinstance(request, ProxyRequest)
    answer = explain(
        config,
        isolator,
        username=b"alice",
        password=b"secret",
        target="A.example:80",
        client="10.0.0.7",
        live_keys=[request.key.label, "000000"],
    )
    assert answer["key"] == request.key.label
    assert answer["live_flows"] == 1


def test_the_key_at_a_unix_listener_is_that_of_a_user() -> None:
    config = configuration("listener.0.address=unix:/run/isoproxy/socks")
    isolator = Isolator()

    def key(uid: int) -> str:
        session = ClientHandshake(
            session_rule(config, config.listener[0]), isolator, client_of_uid(uid)
        )
        request = session.receive(b"\x05\x01\x00\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50")
        assert isinstance(request, ProxyRequest)
        return request.key.label

    assert explain(config, isolator)["key"] == key(os.geteuid())
    assert explain(config, isolator, client="1234")["key"] == key(1234)
    for client in ("127.0.0.1", "-1", "", "\u00b2", "9" * 11):
        with pytest.raises(OperationError, match="number of a user"):
            explain(config, isolator, client=client)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("example.com:80", "Tor, to an exit that resolves the name"),
        ("1.2.3.4:80", "Tor"),
        ("[2001:db8::1]:80", "Tor"),
        ("x.onion:80", "Tor, to an onion service"),
        ("x.onion.:80", "Tor, to an onion service"),
        ("onion:80", "refused: This name is never sent to Tor"),
        ("example.bit:80", "resolved as a Namecoin name under this key, then Tor"),
        ("printer.local:80", "refused: This name is never sent to Tor"),
        (None, "Tor"),
    ],
)
def test_the_path_of_a_target(target: str | None, words: str) -> None:
    answer = explain(Config(), Isolator(), target=target)
    assert str(answer["path"]).startswith(words)


def test_what_it_shares_with() -> None:
    config = configuration(
        "listener.0.isolate=[]", "listener.0.session_group=3", "listener.1.address=127.0.0.1:1"
    )
    first = explain(config, Isolator(), listener="listener2")
    assert first["shares_with"] == (
        "streams of this listener with the same client address, user name, password"
    )
    assert explain(config, Isolator())["shares_with"] == (
        "all streams of listeners of session group 3"
    )
    assert explain(config, Isolator(), listener="127.0.0.1:1")["listener"] == "listener2"


def test_the_form_of_the_credentials() -> None:
    config = configuration("tor.credentials=verbatim", 'listener.0.isolate=["SOCKSAuth"]')
    isolator = Isolator(verbatim=True)
    told = explain(config, isolator, username=b"a", password=b"b")
    assert told["credentials"] == "the application's own"
    assert explain(config, isolator)["credentials"] == "derived from the key"


def test_nothing_given_is_told_back() -> None:
    answer = explain(
        Config(), Isolator(), username=b"MARKED", password=b"MARKED", target="marked.example:80"
    )
    assert "marked" not in str(answer).lower()


@pytest.mark.parametrize(
    "arguments",
    [
        {"listener": "marked"},
        {"target": "marked"},
        {"target": "marked:99999"},
        {"target": "mar ked:80"},
        {"client": "marked.example"},
        {"username": b"<torS0X>marked"},
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(OperationError) as caught:
        explain(Config(), Isolator(), **arguments)  # type: ignore[arg-type]  # by name
    assert "marked" not in str(caught.value)


def test_requests_are_read_strictly() -> None:
    request = {"request": "explain", "username": "\udcff", "target": "a:1", "password": None}
    assert arguments_of(request) == {"username": b"\xff", "target": "a:1"}
    with pytest.raises(OperationError, match="listener must be text"):
        arguments_of({"listener": 5})
