"""Bridge lines as people paste them, and what is never repeated of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ConfigError
from isoproxy.tor.managed.bridges import (
    Transport,
    read_bridges,
    read_transports,
    transport_lines,
)

FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
CERT = "cert=AAAA+bb/CC== iat-mode=0"
OBFS4 = f"obfs4 192.0.2.1:443 {FINGERPRINT} {CERT}"
SNOWFLAKE = (
    f"snowflake 192.0.2.3:80 {FINGERPRINT} fingerprint={FINGERPRINT} "
    "url=https://broker.example/ fronts=a.example,b.example ice=stun:stun.example:3478"
)
MEEK = "meek_lite 192.0.2.18:80 url=https://meek.example/ front=cdn.example"
WEBTUNNEL = f"webtunnel [2001:db8::1]:443 {FINGERPRINT} url=https://example.com/a ver=0.0.1"


def nowhere(program: str) -> str | None:
    """Where a program is installed: it is not."""
    return None


def blank(program: str) -> str | None:
    """Where torrc has no way to name it."""
    return f"/a b/{program}"


@pytest.mark.parametrize(
    ("pasted", "lines"),
    [
        (OBFS4, [OBFS4]),
        (f"Bridge {OBFS4}", [OBFS4]),
        (f"  bridge\t{OBFS4.replace(' ', '  ')}  # from a friend", [OBFS4]),
        ("\ufeff\u200b" + OBFS4.replace("obfs4", "ob\u200dfs4") + "\u2060", [OBFS4]),
        (OBFS4.replace(" ", "\u00a0"), [OBFS4]),
        (f"\u201c{OBFS4}\u201d", [OBFS4]),
        (OBFS4.replace(FINGERPRINT, f"${FINGERPRINT.lower()}"), [OBFS4]),
        (f"# mine\n\n{OBFS4}\r\nBridge {WEBTUNNEL}\n", [OBFS4, WEBTUNNEL]),
        (OBFS4.replace(" cert", "\n   cert"), [OBFS4]),
        (OBFS4.replace(f" {FINGERPRINT}", f"\n{FINGERPRINT}"), [OBFS4]),
        (f"{OBFS4}\n{OBFS4}", [OBFS4]),
        (SNOWFLAKE, [SNOWFLAKE]),
        (MEEK, [MEEK]),
        ("vanilla 192.0.2.1:9001", ["192.0.2.1:9001"]),
        (f"192.0.2.1:9001 {FINGERPRINT}", [f"192.0.2.1:9001 {FINGERPRINT}"]),
        ("[2001:db8::1]:9001", ["[2001:db8::1]:9001"]),
        ("", []),
        ("# none today", []),
    ],
)
def test_what_people_paste(pasted: str, lines: list[str]) -> None:
    assert [bridge.line for bridge in read_bridges([pasted])] == lines


@pytest.mark.parametrize(
    ("garbled", "told"),
    [
        ("obfs4", "address is missing"),
        (f"obfs4 bridge.example:443 {FINGERPRINT} {CERT}", "expected a bridge's address"),
        (f"obfs4 192.0.2.1:0 {FINGERPRINT} {CERT}", "expected a bridge's address"),
        (f"obfs4 192.0.2.1:65536 {FINGERPRINT} {CERT}", "expected a bridge's address"),
        (f"obfs4 192.0.2.300:443 {FINGERPRINT} {CERT}", "expected a bridge's address"),
        (f"obfs4 2001:db8::1:443 {FINGERPRINT} {CERT}", "expected a bridge's address"),
        (f"obfs4 192.0.2.1:443 {FINGERPRINT[:-1]} {CERT}", "40 hexadecimal digits"),
        (f"obfs4 192.0.2.1:443 {FINGERPRINT}", "all of the line pasted"),
        (f"obfs4 192.0.2.1:443 {FINGERPRINT} cert=", "40 hexadecimal digits"),
        (f"192.0.2.1:443 {FINGERPRINT} {CERT}", "begins with its transport"),
        ("meek_lite 192.0.2.1:443", "all of the line pasted"),
        (f"obfs4 192.0.2.1:443 {FINGERPRINT} cert={'A' * 2000}", "not so long"),
        (f"obfs4 192.0.2.1:443 {FINGERPRINT} cert=a\x1b[2J", "40 hexadecimal digits"),
        ("\u043ebfs4 192.0.2.1:443", "expected a bridge's address"),
    ],
)
def test_a_garbled_line_is_refused_and_not_repeated(garbled: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        read_bridges([OBFS4, garbled])
    text = str(caught.value)
    assert text.startswith("entry 2: ")
    for word in garbled.split():
        if any(c.isdigit() for c in word) and word not in ("obfs4", "iat-mode=0"):
            assert word not in text


@given(st.text(max_size=80))
def test_whatever_is_pasted_is_one_line_for_tor_or_a_config_error(pasted: str) -> None:
    try:
        found = read_bridges([pasted])
    except ConfigError:
        return
    for bridge in found:
        assert bridge.line.isascii()
        assert bridge.line.isprintable()
        assert read_bridges([bridge.line]) == (bridge,)


def test_a_repr_shows_nothing_of_a_bridge() -> None:
    (bridge,) = read_bridges([OBFS4])
    assert repr(bridge) == "Bridge(transport='obfs4')"


def test_transports_are_found_by_themselves_once_each() -> None:
    installed = {"obfs4proxy": "/usr/bin/obfs4proxy", "snowflake-client": "/opt/snowflake-client"}
    bridges = read_bridges([OBFS4, MEEK, SNOWFLAKE, "192.0.2.9:9001"])
    lines = transport_lines(bridges, (), installed.get)
    assert lines[:4] == [
        "UseBridges 1",
        "ClientTransportPlugin meek_lite exec /usr/bin/obfs4proxy",
        "ClientTransportPlugin obfs4 exec /usr/bin/obfs4proxy",
        "ClientTransportPlugin snowflake exec /opt/snowflake-client",
    ]
    assert lines[4:] == [f"Bridge {bridge.line}" for bridge in bridges]
    installed["lyrebird"] = "/usr/bin/lyrebird"
    assert "ClientTransportPlugin obfs4 exec /usr/bin/lyrebird" in transport_lines(
        bridges, (), installed.get
    )


def test_a_program_of_ones_own_is_taken_before_all() -> None:
    chosen = read_transports(["obfs4 /opt/x -enableLogging", "new /opt/new"])
    assert chosen == (Transport("obfs4", "/opt/x -enableLogging"), Transport("new", "/opt/new"))
    lines = transport_lines(read_bridges([OBFS4, "new 192.0.2.1:1"]), chosen, nowhere)
    assert "ClientTransportPlugin obfs4 exec /opt/x -enableLogging" in lines
    assert "ClientTransportPlugin new exec /opt/new" in lines


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (OBFS4, "obfs4.*install lyrebird or obfs4proxy"),
        (SNOWFLAKE, "snowflake.*apt install lyrebird|snowflake.*install snowflake-client"),
        ("dust 192.0.2.1:1", "dust.*tor.transports"),
    ],
)
def test_a_missing_transport_is_one_sentence_without_the_bridge(line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        transport_lines(read_bridges([line]), (), blank)
    assert "192.0.2" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["", "obfs4", "obfs4 obfs4proxy", "/usr/bin/obfs4proxy", "o-4 /x"]
)
def test_an_entry_that_names_no_program_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="entry 1: expected"):
        read_transports([entry])


def test_without_bridges_there_is_nothing_to_say() -> None:
    assert transport_lines((), (), nowhere) == []
