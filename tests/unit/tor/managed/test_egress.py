"""Settings of the way out, as lines of torrc."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.tor.managed.bridges import read_bridges
from isoproxy.tor.managed.egress import DIRECT, Egress, read_proxy
from isoproxy.tor.managed.torrc import torrc


def nowhere(program: str) -> str | None:
    """Where a program is installed: it is not."""
    return None


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("socks5://10.0.0.1:1080", ["Socks5Proxy 10.0.0.1:1080"]),
        ("socks4://10.0.0.1:1080/", ["Socks4Proxy 10.0.0.1:1080"]),
        ("http://[2001:db8::1]:3128", ["HTTPSProxy [2001:db8::1]:3128"]),
        (
            "socks5://me:se@cr:et@10.0.0.1:1080",
            ["Socks5Proxy 10.0.0.1:1080", "Socks5ProxyUsername me", "Socks5ProxyPassword se@cr:et"],
        ),
        (
            "http://me:secret@10.0.0.1:3128",
            ["HTTPSProxy 10.0.0.1:3128", "HTTPSProxyAuthenticator me:secret"],
        ),
    ],
)
def test_a_proxy(text: str, lines: list[str]) -> None:
    egress = Egress(proxy=read_proxy(text))
    assert egress.lines(nowhere) == lines
    assert egress.is_secret
    assert "10.0.0.1" not in repr(egress)
    assert "secret" not in repr(egress)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:1080",
        "socks5h://10.0.0.1:1080",
        "socks5://proxy.example:1080",
        "socks5://10.0.0.1",
        "socks5://me@10.0.0.1:1080",
        "socks4://me:secret@10.0.0.1:1080",
        "http://me:sec ret@10.0.0.1:1080",
    ],
)
def test_what_is_no_proxy_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_proxy(text)
    assert "10.0.0.1" not in str(caught.value)
    assert "sec" not in str(caught.value)


def test_ports_and_bridges_go_into_the_torrc() -> None:
    egress = Egress(read_bridges(["192.0.2.1:9001"]), firewall_ports=(80, 443))
    text = torrc(Path("/var/lib/x"), (0, 4, 9, 11), egress.lines(nowhere))
    assert text.splitlines()[-3:] == [
        "UseBridges 1",
        "Bridge 192.0.2.1:9001",
        "ReachableAddresses *:80,*:443",
    ]


def test_by_default_tor_goes_by_itself_and_may_be_quoted() -> None:
    assert (DIRECT.lines(nowhere), DIRECT.is_secret) == ([], False)
