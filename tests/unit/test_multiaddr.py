"""Multiaddrs: the forms that Tor can reach, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ConfigError
from isoproxy.multiaddr import Multiaddr, onion_multiaddr, parse_destination
from tests.kit.onion_address import onion_address

ONION = onion_address(bytes(range(32)))
HOST = ONION.removesuffix(".onion")
PEER = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
CID = "bafzaajaiaejcbzdibmxyzdjbbehgvizh6g5tikvy47mshdy6gwbruvgwvd24seje"


@pytest.mark.parametrize(
    ("text", "host", "port", "peer"),
    [
        (f"/onion3/{HOST}:80", ONION, 80, None),
        (f"/onion3/{HOST}:65535/p2p/{PEER}", ONION, 65535, PEER),
        (f"/onion3/{HOST}:1/p2p/{CID}", ONION, 1, CID),
        ("/dns/example.bit/tcp/443", "example.bit", 443, None),
        ("/dns4/Example.com/tcp/4001", "example.com", 4001, None),
        (f"/dns6/example.com/tcp/4001/p2p/{PEER}", "example.com", 4001, PEER),
        ("/ip4/192.0.2.1/tcp/80", "192.0.2.1", 80, None),
        ("/ip6/2001:db8::1/tcp/80", "2001:db8::1", 80, None),
    ],
)
def test_forms(text: str, host: str, port: int, peer: str | None) -> None:
    address = Multiaddr.parse(text)
    assert (address.target.host, address.target.port, address.peer) == (host, port, peer)
    assert str(address) == text.replace("Example", "example")
    assert parse_destination(text) == address.target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "onion3/x:1",
        f"/onion3/{HOST}",
        f"/onion3/{HOST}:0",
        f"/onion3/{HOST}:65536",
        f"/onion3/{HOST}:080",
        f"/onion3/{HOST[:-1]}a:80",
        f"/onion3/www.{HOST}:80",
        f"/onion3/{HOST}:80/",
        f"/onion3/{HOST}:80/tcp/80",
        "/onion/aaimaq4ygg2iegci:80",
        "/ip4/192.0.2.1/udp/80",
        "/ip4/192.0.2.1/udp/80/quic-v1",
        "/ip4/192.0.2.1/tcp/80/ws",
        "/ip4/192.0.2.01/tcp/80",
        "/ip4/2001:db8::1/tcp/80",
        "/ip6/192.0.2.1/tcp/80",
        "/ip6/fe80::1%eth0/tcp/80",
        "/ip6zone/eth0/ip6/fe80::1/tcp/80",
        "/dns/192.0.2.1/tcp/80",
        "/dns/a b/tcp/80",
        "/dns/ä.example/tcp/80",
        "/dnsaddr/bootstrap.libp2p.io",
        f"/ip4/192.0.2.1/tcp/80/p2p/{PEER}/p2p-circuit",
        "/ip4/192.0.2.1/tcp/80/p2p/short",
        "/ip4/192.0.2.1/tcp/٨٠",
        "/unix/run/socket",
        "/dns/" + "a" * 600 + "/tcp/80",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Multiaddr.parse(text)
    assert not text or len(text) < 3 or text not in str(refused.value)


@given(st.text(max_size=100) | st.from_regex(r"/(ip4|ip6|dns|onion3)/[^/]*/tcp/[0-9]*(/.*)?"))
def test_never_anything_but_a_configuration_error(text: str) -> None:
    try:
        address = Multiaddr.parse(text)
    except ConfigError:
        return
    assert Multiaddr.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com:80", "example.com:80"),
        (f"{ONION}:80", f"{ONION}:80"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
    ],
)
def test_host_and_port(text: str, expected: str) -> None:
    assert str(parse_destination(text)) == expected


@pytest.mark.parametrize(
    "text", ["example.com", ":80", "example.com:", "2001:db8::1:80", "a\nb:80", "a:b:80", "[x]:1"]
)
def test_neither_host_nor_port(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_destination(text)


def test_of_an_onion_service() -> None:
    assert str(onion_multiaddr(ONION, 8333)) == f"/onion3/{HOST}:8333"
