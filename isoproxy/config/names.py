"""The settings of name look-ups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isoproxy.config.option import (
    FrozenMapping,
    LoginAt,
    boolean,
    choice,
    endpoint,
    integer,
    ip_network,
    login_at,
    mapping,
    matching,
    one_line,
    option,
    optional,
    seconds,
    section,
    several,
    text,
)
from isoproxy.net.endpoint import Endpoint

_suffix = matching(
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*",
    "the end of a name in small letters, such as lan",
)

_hex32 = matching(r"[0-9a-f]{64}", "64 hexadecimal digits")

_server = matching(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,249}):[0-9]{1,5}:(?:[st]|s:[0-9A-Fa-f]{64})",
    '"host:port:s" (TLS), "host:port:s:SHA-256 of its certificate" or "host:port:t" (TCP)',
)

_no_top_levels: Mapping[str, str] = FrozenMapping()

_no_clients: Mapping[str, LoginAt] = FrozenMapping()


@dataclass(frozen=True, slots=True)
class ElectrumConfig:
    network: str = option(
        "mainnet", "The Namecoin network.", choice("mainnet", "testnet", "regtest")
    )
    servers: tuple[str, ...] = option(
        (),
        'ElectrumX servers, "host:port:s" for TLS (":" and the certificate\'s SHA-256 may '
        'follow) or "host:port:t" for TCP; without any, the list in the package.',
        several(_server),
    )
    allow_plain: bool = option(
        False,
        "Use servers over TCP that are no onion services: the exit reads every name.",
        boolean,
    )
    quorum: int = option(2, "Servers that must agree on what is recent or absent.", integer(1, 16))
    confirmations: int = option(
        12, "Blocks on top of a registration before it is believed.", integer(1, 1000)
    )
    proof: str = option(
        "sampled",
        "When look-ups begin after months offline: once the newest blocks and drawn ones are "
        'proven, the others following ("sampled"), or once all are ("full").',
        choice("sampled", "full"),
    )
    pool_size: int = option(
        96,
        "Connections open ahead of identities to come, on average; 0 for none. Fewer are "
        "noticed by identities when there are none left.",
        integer(0, 256),
    )
    max_connections: int = option(
        256,
        "Connections that look-ups may have open beside those, all together; one client may "
        "have as many as it leaves free.",
        integer(1, 4096),
    )
    circuits_per_minute: int = option(
        60, "Circuits that one client's look-ups may open in a minute.", integer(1, 6000)
    )
    anchor_height: int | None = option(
        None,
        "Height of the block that header checking starts from, instead of the package's.",
        optional(integer(0, 2**31 - 1)),
        example="815000",
    )
    anchor_hash: str | None = option(
        None, "Hash of that block.", optional(_hex32), example="46c3...affcf"
    )
    checkpoint_height: int | None = option(
        None,
        "Height up to which single headers are proven by a Merkle root instead of being "
        "downloaded with their neighbours.",
        optional(integer(0, 2**31 - 1)),
        example="518353",
    )
    checkpoint_root: str | None = option(
        None,
        "Merkle root over the hashes of all blocks up to there.",
        optional(_hex32),
        example="476a...c48b",
    )


@dataclass(frozen=True, slots=True)
class RpcConfig:
    address: Endpoint = option(
        Endpoint.tcp("127.0.0.1", 8336),
        "JSON-RPC address of Electrum-NMC or Namecoin Core.",
        endpoint,
    )
    username: str | None = option(None, "RPC user.", optional(text), example="a user", secret=True)
    password: str | None = option(
        None, "RPC password.", optional(text), example="a password", secret=True
    )
    cookie_file: str | None = option(
        None,
        "Namecoin Core's cookie file, instead of user and password.",
        optional(one_line),
        example="/var/lib/namecoin/.cookie",
    )
    allow_unisolated: bool = option(
        False, "Use a backend that cannot keep look-ups apart; never sensible.", boolean
    )
    clients: Mapping[str, LoginAt] = option(
        _no_clients,
        "RPC address by client network, for workstations that bring their own, each with a "
        "user and a password of its own if you like; an example: "
        '{ "10.152.152.11/32" = "user:password@10.152.152.11:8336" }.',
        mapping(ip_network, login_at),
        secret=True,
    )


@dataclass(frozen=True, slots=True)
class NamesConfig:
    backend: str = option(
        "electrum",
        "Who answers for .bit names: the light client in isoproxy, or another program; "
        '"none" refuses such names.',
        choice("electrum", "electrum-nmc", "namecoin-core", "none"),
    )
    timeout_s: float = option(
        60.0, "Seconds that resolving a name may take, waiting included.", seconds(1, 600)
    )
    only_onion: bool = option(False, "Use the onion services of a name alone.", boolean)
    allow_clearnet_alias: bool = option(
        False,
        "Follow a .bit name's alias to a name outside of .bit, which an exit then resolves "
        "without any proof.",
        boolean,
    )
    allow_private_addresses: bool = option(
        False, "Accept names that point to private or loopback addresses.", boolean
    )
    top_levels: Mapping[str, str] = option(
        _no_top_levels,
        'Who resolves names that end so, beyond the defaults: "tor" (an exit), "refuse" '
        '(nobody; such are local, i2p and others) or, for bit, "namecoin"; an example: '
        '{ lan = "refuse" }.',
        mapping(_suffix, choice("namecoin", "tor", "refuse")),
    )
    electrum: ElectrumConfig = section(ElectrumConfig, "The light client in isoproxy.")
    rpc: RpcConfig = section(RpcConfig, "Electrum-NMC or Namecoin Core.")
