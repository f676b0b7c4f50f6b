"""The settings of Bitcoin streams and proxies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isoproxy.config.option import (
    FrozenMapping,
    Mode,
    boolean,
    choice,
    flags,
    host_and_port,
    integer,
    listening,
    mapping,
    matching,
    number,
    option,
    optional,
    permissions,
    sections,
    several,
)
from isoproxy.isolation import DEFAULT_ISOLATION, Isolate
from isoproxy.net.endpoint import Endpoint

PORT = integer(1, 0xFFFF)
CHAIN = matching(
    r"mainnet|testnet3|testnet4|signet|regtest|btcd-simnet|namecoin|namecoin-testnet"
    r"|signet-[0-9a-f]{8}",
    "mainnet, testnet3, testnet4, signet, signet-MAGIC, regtest, btcd-simnet, namecoin or "
    "namecoin-testnet",
)
_no_peers: Mapping[str, str] = FrozenMapping()


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    address: Endpoint = option(
        Endpoint("127.0.0.1", 1324),
        "Where to accept Bitcoin peers' connections without SOCKS.",
        listening,
    )
    name: str = option(
        "",
        "Name of the proxy in logs and metrics.",
        matching(r"(?:[a-z0-9][a-z0-9_-]{0,31})?", "small letters, digits, '-' and '_'"),
    )
    isolate: Isolate = option(
        DEFAULT_ISOLATION | Isolate.DEST_ADDR | Isolate.DEST_PORT,
        "Connections that differ in one of these never share a circuit.",
        flags,
    )
    network: str | None = option(
        None,
        "The only network accepted; without it any known one.",
        optional(CHAIN),
        example='"mainnet"',
    )
    peer: str | None = option(
        None,
        "The one peer that all clients reach, whatever they ask for.",
        optional(host_and_port),
        example='"examplepeer.onion:8333"',
    )
    peers: Mapping[str, str] = option(
        _no_peers,
        "Peers in place of the address asked for; an example: "
        '{ "10.64.0.1:8333" = "examplepeer.onion:8333" }.',
        mapping(host_and_port, host_and_port),
    )
    allow_private_addresses: bool = option(
        False,
        "Go to private and loopback addresses that clients name; for test networks alone.",
        boolean,
    )
    max_connections: int = option(512, "Connections open at a time.", integer(1, 100_000))
    mode: Mode = option(Mode(0o660), "Permissions of a unix socket, octal.", permissions)


@dataclass(frozen=True, slots=True)
class BitcoinConfig:
    v2: str = option("on", "Speak BIP324 to peers for clients that cannot.", choice("on", "off"))
    v1_fallback: str = option(
        "onion-only",
        "Peers without v2 that may be spoken to in plaintext.",
        choice("never", "onion-only", "always"),
    )
    ports: tuple[int, ...] = option(
        (8333, 18333, 38333, 48333, 18444, 18555, 8334, 18334, 38334),
        "Destination ports on which a Bitcoin or Namecoin peer is expected.",
        several(PORT),
    )
    signet_challenges: tuple[str, ...] = option(
        (),
        "Challenges, in hexadecimal, of custom signets whose programs shall be recognised.",
        several(matching(r"(?:[0-9a-f]{2}){1,10000}", "a script in hexadecimal")),
    )
    garbage: str = option(
        "random",
        'What follows our key in the handshake: "random" is 0 to 4094 bytes as Bitcoin Core '
        'sends; "none" saves them, and tells that we are not Core.',
        choice("random", "none"),
    )
    ellswift_prefix: str = option(
        "",
        "Bytes in hexadecimal that our public key, and so the stream, shall begin with, at most "
        "32; whoever sees the stream behind the exit can recognise them.",
        matching(r"(?:[0-9a-f]{2}){0,32}", "up to 64 hexadecimal digits, an even number"),
    )
    decoys_per_minute: float = option(
        0.0,
        "Packets to be thrown away that are sent on average; they cost bandwidth, blur sizes "
        "and times, and tell that we are not Core, which sends none.",
        number(0, 6000),
    )
    decoys_before_version: int = option(0, "Decoys sent within the handshake.", integer(0, 16))
    decoy_sizes: tuple[int, ...] = option(
        (1, 1024),
        "Bytes of contents that a decoy has, at least and at most.",
        several(integer(0, 65_535), distinct=False),
    )
    decoy_distribution: str = option(
        "logarithmic",
        'Decoys are mostly small, "logarithmic", or of all sizes alike, "uniform".',
        choice("logarithmic", "uniform"),
    )
    scrub_version: bool = option(
        False,
        "Zero both addresses in the client's VERSION message, as Bitcoin Core does in its own.",
        boolean,
    )
    user_agent_suffix: str = option(
        "",
        "Appended to the client's user agent; a fingerprint by purpose.",
        matching(r"[\x20-\x7e]{0,200}", "at most 200 printable ASCII characters"),
    )
    proxy: tuple[ProxyConfig, ...] = sections(
        ProxyConfig, "A port for Bitcoin programs that know no proxy."
    )
