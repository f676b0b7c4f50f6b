"""The torrc of a managed tor: private, whole, and not to be undone by extra lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ConfigError
from isoproxy.tor.managed.log import TorLog
from isoproxy.tor.managed.torrc import TorOutput, parse_version, socket_in, torrc

DIRECTORY = Path("/var/lib/isoproxy/tor")
VERSION = (0, 4, 9, 11)


def test_streams_come_in_through_a_private_unix_socket_only() -> None:
    lines = torrc(DIRECTORY, VERSION).splitlines()
    assert (
        'SocksPort unix:"/var/lib/isoproxy/tor/socks" '
        "IsolateSOCKSAuth KeepAliveIsolateSOCKSAuth ExtendedErrors" in lines
    )
    assert 'ControlPort unix:"/var/lib/isoproxy/tor/control"' in lines
    for line in ("CookieAuthentication 1", "DNSPort 0", "ConfluxEnabled 0", "SafeLogging 1"):
        assert line in lines


def test_an_old_tor_is_spared_an_option_it_does_not_know() -> None:
    assert "ConfluxEnabled" not in torrc(DIRECTORY, (0, 4, 7, 16))
    with pytest.raises(ConfigError, match="too old"):
        torrc(DIRECTORY, (0, 4, 6, 12))


def test_extra_lines_come_last() -> None:
    text = torrc(DIRECTORY, VERSION, ["DisableNetwork 1", "# why", "", "  UseBridges 1 "])
    assert [line for line in text.splitlines() if line][-2:] == ["DisableNetwork 1", "UseBridges 1"]


@pytest.mark.parametrize(
    "line",
    [
        "SocksPort 9050",
        "socksPORT 0",
        "+SocksPort 9050 NoIsolateSOCKSAuth",
        "/SocksPort",
        "__SocksPort 9050",
        "SocksPor 9050",
        "Socks 0",
        "DNSPort 53",
        "ControlPort 9051",
        "ControlSocket 0",
        "HashedControlPassword x",
        "CookieAuthentication 0",
        "ConfluxEnabled 1",
        "SafeLogging 0",
        "Log debug stdout",
        "DataDirectory /tmp",
        "%include /etc/tor/torrc",
        "__OwningControllerProcess 1",
        "RunAsDaemon 1",
        "HTTPTunnelPort 1",
        "TransPort 1",
    ],
)
def test_what_isolation_rests_on_cannot_be_changed(line: str) -> None:
    with pytest.raises(ConfigError, match="set by isoproxy"):
        torrc(DIRECTORY, VERSION, [line])


@pytest.mark.parametrize(
    "line", ["Nickname a\nSocksPort 9050", "Nickname a \\", "Nickname\ta", "?"]
)
def test_an_extra_line_is_one_line(line: str) -> None:
    with pytest.raises(ConfigError, match="entry"):
        torrc(DIRECTORY, VERSION, [line])


@pytest.mark.parametrize("path", ['/a"b', "/a\\b", "/a\nb"])
def test_a_directory_that_cannot_be_quoted_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="quotes"):
        torrc(Path(path), VERSION)


def test_a_socket_path_that_is_too_long_says_what_to_change() -> None:
    with pytest.raises(ConfigError, match="STATE_DIRECTORY"):
        socket_in(Path("/" + "a" * 104), "socks")
    assert socket_in(Path("/" + "a" * 100), "socks").path == "/" + "a" * 100 + "/socks"


def test_the_version_is_found() -> None:
    assert parse_version("Tor version 0.4.9.11.\nThis build") == VERSION
    assert parse_version("0.4.8.1-alpha (git-0)") == (0, 4, 8, 1)
    with pytest.raises(ConfigError, match="version"):
        parse_version("GNU coreutils 9.1")


REFUSED = (
    b"Nov 21 02:08:49.354 [notice] Read configuration file\n"
    b"Nov 21 02:08:49.355 [warn] Failed to parse/validate config: Unknown option 'Foo'.  Failing.\n"
    b"Nov 21 02:08:49.355 [err] Reading config failed--see warnings above.\n"
)


def test_a_refused_configuration_is_recognised_in_any_cut() -> None:
    for size in (1, 10, 1000):
        output = TorOutput(TorLog())
        for start in range(0, len(REFUSED), size):
            output.feed(REFUSED[start : start + size])
        assert output.is_bad_config
        assert output.problems[0].startswith("Failed to parse")
        assert not output.lacks_isolation


def test_an_unknown_isolation_flag_is_recognised() -> None:
    output = TorOutput(TorLog())
    output.feed(b"Nov 21 02:08:49.368 [warn] Unrecognized SocksPort option '\"FooBar\"'\n")
    assert output.lacks_isolation


def test_nothing_is_kept_once_tor_runs() -> None:
    output = TorOutput(TorLog())
    output.feed(b"Nov 21 02:08:49.368 [warn] half a li")
    output.settle()
    output.feed(b"ne\nNov 21 02:08:49.368 [warn] marked\n")
    assert not output.problems


def test_all_of_it_goes_to_the_log_scrubbed() -> None:
    log = TorLog()
    output = TorOutput(log)
    output.feed(b"Nov 21 02:08:49.368 [notice] Opened Socks listener on 192.0.2.1:9050\n")
    output.settle()
    output.feed(b"Nov 21 02:08:50.368 [warn] Managed proxy '/usr/bin/x' terminated\n")
    assert log.lines == [
        "02:08:49 [notice] Opened Socks listener on [scrubbed]",
        "02:08:50 [warn] Managed proxy '/usr/bin/x' terminated",
    ]


def test_a_tor_that_knows_a_bridge_is_not_quoted() -> None:
    output = TorOutput(TorLog(), scrubbed=True)
    output.feed(b"Nov 21 02:08:49.354 [warn] Bridge line 'obfs4 192.0.2.1:443 cert=A' is bad\n")
    assert list(output.problems) == ["Bridge line [scrubbed] [scrubbed] [scrubbed] is bad"]


@given(st.lists(st.binary(max_size=600), max_size=10))
def test_any_output_costs_bounded_memory(chunks: list[bytes]) -> None:
    output = TorOutput(TorLog())
    for chunk in chunks:
        output.feed(chunk)
    assert len(output.problems) <= 6
    assert all(len(text) <= 400 and text.isprintable() for text in output.problems)
