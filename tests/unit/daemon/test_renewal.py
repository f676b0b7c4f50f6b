"""Which keys belong to a label, or to an isolation ID."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoproxy.client import PASSWORD
from isoproxy.config import Config, load
from isoproxy.daemon.renewal import renewal_of
from isoproxy.daemon.resolve import command_key
from isoproxy.daemon.settings.front import program_listener, session_rule
from isoproxy.dns.responder import dns_key
from isoproxy.errors import OperationError
from isoproxy.isolation import (
    ClientProtocol,
    IsolationTuple,
    Isolator,
    client_of_address,
    client_of_uid,
)

LISTENERS = """
[[listener]]
name = "tcp"
address = "127.0.0.1:9250"

[[listener]]
name = "unix"
address = "unix:/run/user/socks"

[[listener]]
name = "gateway"
address = "10.152.152.10:9250"

[[listener]]
name = "apart"
address = "127.0.0.1:9251"
isolate = ["ClientAddr", "SOCKSAuth", "DestAddr"]

[[listener]]
name = "one-for-all"
address = "127.0.0.1:9252"
isolate = ["ClientAddr"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "isoproxy.toml"
    file.write_text(LISTENERS)
    return load(file, []).config


def test_without_a_name_it_is_everybody(config: Config) -> None:
    assert renewal_of({"request": "newnym"}, config, Isolator()) is None


def test_a_label_is_taken_as_it_is(config: Config) -> None:
    renewal = renewal_of({"label": "abcdef"}, config, Isolator())
    assert renewal is not None
    assert (renewal.labels, renewal.by_destination) == (("abcdef",), ())


def test_an_isolation_id_has_a_key_wherever_our_commands_use_it(config: Config) -> None:
    isolator = Isolator()
    renewal = renewal_of({"isolation": "alice"}, config, isolator)
    assert renewal is not None
    local = client_of_address("127.0.0.1")
    clients = [local, client_of_uid(os.geteuid()), client_of_address("10.152.152.10")]
    keys = [command_key(isolator, "alice"), dns_key(isolator, local, b"alice")]
    programs = program_listener(config.names).rule.listener
    for user in {0, os.geteuid()}:
        stream = IsolationTuple(client_of_uid(user), ClientProtocol.TRANSPARENT, b"alice")
        keys.append(isolator.key_for(programs, stream))
    for listener, client in zip(config.listener, clients, strict=False):
        stream = IsolationTuple(client, ClientProtocol.SOCKS5, b"alice", PASSWORD.encode())
        keys.append(isolator.key_for(session_rule(config, listener).listener, stream))
    assert renewal.labels == tuple(key.label for key in keys)
    assert renewal.by_destination == ("apart",)


@pytest.mark.parametrize(
    "request_", [{"label": 7}, {"isolation": 7}, {"label": "abcdef", "isolation": "alice"}]
)
def test_what_names_nobody_is_refused(request_: dict[str, object], config: Config) -> None:
    with pytest.raises(OperationError, match="as text"):
        renewal_of(request_, config, Isolator())


def test_credentials_of_the_programs_own_are_not_ours_to_renew(config: Config) -> None:
    with pytest.raises(OperationError, match="verbatim"):
        renewal_of({"label": "abcdef"}, config, Isolator(verbatim=True))
