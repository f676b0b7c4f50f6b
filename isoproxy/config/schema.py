"""Every setting of isoproxy: its name, default, unit and one sentence about it.

The sample file, the checks and the error messages are made from these declarations, so
a setting is described in this one place.  Values are frozen; a reload builds a new tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isoproxy.config.bitcoin import CHAIN, PORT, BitcoinConfig
from isoproxy.config.names import NamesConfig
from isoproxy.config.option import (
    Mode,
    boolean,
    choice,
    endpoint,
    endpoint_or_none,
    flags,
    integer,
    listening,
    matching,
    one_line,
    option,
    optional,
    permissions,
    seconds,
    section,
    sections,
    several,
    text,
)
from isoproxy.isolation import DEFAULT_ISOLATION, Isolate
from isoproxy.net.endpoint import Endpoint

DEFAULT_PORT: Final = 9250  # Whonix takes 9040-9229
DEFAULT_NAME: Final = "default"
"""What the first listener is called if it is given no name."""
NO_CREDENTIALS_PORT: Final = 9251
NO_CREDENTIALS: Final = "no-credentials"
PRESETS: Final = {
    NO_CREDENTIALS: DEFAULT_ISOLATION | Isolate.DEST_ADDR | Isolate.DEST_PORT,
}
"""Flags by name; each is at least as strict as the default."""
LOG_LEVELS: Final = ("debug", "info", "notice", "warn", "err")

_name = matching(r"[a-z0-9][a-z0-9_-]{0,31}", "a name of small letters, digits, '-' and '_'")
_unset_address: Endpoint | None = None
_unset_endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class TorConfig:
    mode: str = option(
        "managed",
        'Who runs Tor: "managed" starts a tor of our own, "system" uses the addresses below, '
        '"arti" starts an Arti of our own, or uses the one at arti_rpc.',
        choice("managed", "system", "arti"),
    )
    credentials: str = option(
        "derived",
        'What Tor sees as SOCKS credentials: "derived" from the isolation key, or the '
        "application's own, \"verbatim\", for Tor Browser's circuit display; the latter needs "
        'exactly one listener with isolate = ["SOCKSAuth"], and no proxy.',
        choice("derived", "verbatim"),
    )
    socks: Endpoint = option(
        Endpoint.tcp("127.0.0.1", 9050), "Tor's SocksPort, in system mode.", endpoint
    )
    control: Endpoint = option(
        Endpoint.tcp("127.0.0.1", 9051),
        'Tor\'s ControlPort, in system mode; "none" works without one, but then NEWNYM '
        "signals of others are not followed.",
        endpoint_or_none,
    )
    control_password: str | None = option(
        None,
        "Password of the ControlPort; without it the authentication cookie is used.",
        optional(text),
        example="a password",
        secret=True,
    )
    binary: str = option("tor", "The tor program that managed mode starts.", one_line)
    bridges: tuple[str, ...] = option(
        (),
        "Bridges of managed mode, as they were handed out: one in each text, or several lines in "
        'one; an entry begins with its transport, or with "vanilla" or none.',
        several(text, distinct=False),
        secret=True,
    )
    transports: tuple[str, ...] = option(
        (),
        "Programs that speak the bridges' transports, where they are not found by themselves "
        '(lyrebird, obfs4proxy, snowflake-client): "NAME /path/of/program ARGUMENTS".',
        several(one_line),
    )
    firewall_ports: tuple[int, ...] = option(
        (),
        "The only ports that a firewall lets managed mode's tor connect to, such as 80 and 443.",
        several(PORT),
    )
    proxy: str | None = option(
        None,
        "The proxy that managed mode's tor has to go through, socks5://, socks4:// or http://, "
        "with user:password@ before the IP where it wants a login.",
        optional(one_line),
        example='"socks5://10.0.0.1:1080"',
        secret=True,
    )
    extra_torrc: tuple[str, ...] = option(
        (), "Lines added to the torrc of managed mode.", several(one_line, distinct=False)
    )
    arti_rpc: Endpoint | None = option(
        None,
        "The RPC socket of an Arti that runs, in arti mode; it tells where its SOCKS port is.",
        optional(endpoint),
        example='"unix:/run/arti/rpc"',
    )
    arti_binary: str = option(
        "arti", "The Arti that arti mode starts; it needs the feature rpc.", one_line
    )
    extra_arti: tuple[str, ...] = option(
        (),
        'Lines added to the configuration of that Arti, as in "path_rules.long_lived_ports = []".',
        several(one_line, distinct=False),
    )


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    address: Endpoint = option(
        Endpoint("127.0.0.1", DEFAULT_PORT),
        'Where to listen for SOCKS5, 4, 4a and HTTP CONNECT: "IP:port" or "unix:/path". '
        "A listener may instead be written as in a torrc: "
        'socks = "127.0.0.1:9250 IsolateDestAddr SessionGroup=3".',
        listening,
    )
    name: str = option(
        "",
        'Name of the listener in logs and metrics; the first is "default", others are numbered.',
        matching(r"(?:[a-z0-9][a-z0-9_-]{0,31})?", "small letters, digits, '-' and '_'"),
    )
    isolate: Isolate = option(
        DEFAULT_ISOLATION,
        "Streams that differ in one of these never share a circuit; also known: "
        "ClientProtocol, DestAddr, DestPort.",
        flags,
    )
    session_group: int | None = option(
        None,
        "Listeners with the same number may share circuits; without one a listener shares "
        "with no other.",
        optional(integer(0, 2**31 - 1)),
        example="1",
    )
    preset: str | None = option(
        None,
        'A set of flags by name: "no-credentials" is for programs that send no user name and '
        "password; it isolates by ClientAddr, SOCKSAuth, DestAddr and DestPort.",
        optional(choice(*PRESETS)),
        example='"no-credentials"',
    )
    extended_errors: bool = option(
        True, "Tell clients Tor's precise reasons, SOCKS replies F0 to F7.", boolean
    )
    require_auth: bool = option(
        False, "Refuse clients that send no isolation user name and password.", boolean
    )
    proxy_auth_challenge: bool = option(
        False,
        "Answer HTTP clients that send no user name and password with 407: some send them only "
        "when they are asked. SOCKS clients notice nothing of it.",
        boolean,
    )
    tls: bool = option(
        False,
        "Answer TLS for port 443 of names under bit; needs tls.enabled. Programs that pin "
        "certificates of such names use another listener.",
        boolean,
    )
    mode: Mode = option(Mode(0o660), "Permissions of a unix socket, octal.", permissions)


@dataclass(frozen=True, slots=True)
class TransparentConfig:
    address: Endpoint = option(
        Endpoint("127.0.0.1", 9240),
        'Where connections are redirected to: "IP:port". The rules that do it are printed by '
        "isoproxy transparent rules. IPv6 needs a section of its own.",
        listening,
    )
    dns: Endpoint | None = option(
        _unset_address,
        "Where DNS queries over UDP are answered, of the same family: each name has a virtual "
        "address, for each client its own.",
        optional(listening),
        example='"127.0.0.1:9253"',
    )
    name: str = option(
        "",
        'Name in logs and metrics; the first is "transparent", others are numbered.',
        matching(r"(?:[a-z0-9][a-z0-9_-]{0,31})?", "small letters, digits, '-' and '_'"),
    )
    isolate: Isolate = option(
        Isolate.CLIENT_ADDR,
        "Connections that differ in one of these never share a circuit; also known: DestAddr, "
        "DestPort.",
        flags,
    )
    session_group: int | None = option(
        None,
        "As for a listener.",
        optional(integer(0, 2**31 - 1)),
        example="1",
    )


DEFAULT_LISTENERS: Final = (
    ListenerConfig(name=DEFAULT_NAME),
    ListenerConfig(
        Endpoint("127.0.0.1", NO_CREDENTIALS_PORT),
        name=NO_CREDENTIALS,
        isolate=PRESETS[NO_CREDENTIALS],
        preset=NO_CREDENTIALS,
    ),
)
"""What is open where the configuration names no listener."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    max_connections: int = option(
        8192, "Connections open at a time, all clients together.", integer(1, 1_000_000)
    )
    max_connections_per_client: int = option(
        4096, "Connections open at a time from one client address.", integer(1, 1_000_000)
    )
    handshake_timeout_s: float = option(
        30.0, "Seconds in which a client must have said what it wants.", seconds(0.1, 3600)
    )
    dial_timeout_s: float = option(
        120.0, "Seconds in which Tor must have opened a stream.", seconds(0.1, 3600)
    )
    idle_timeout_s: float = option(
        7200.0,
        "Seconds without a byte after which a stream is closed, at the latest twice as many.",
        seconds(1, 31_536_000),
    )
    max_pending_circuits: int = option(
        24,
        "New circuits asked of Tor at a time, a quarter of them for look-ups of names; Tor "
        "itself stops at 32.",
        integer(2, 32),
    )
    workers: int = option(
        2,
        "Processes that carry streams, at most one per processor core, beside the main one, "
        "which carries none. Each has an equal part of the budgets above; where the parts "
        "would be too small there are fewer.",
        integer(1, 64),
    )
    drain_timeout_s: float = option(
        10.0, "Seconds that streams may go on after the order to stop.", seconds(0, 3600)
    )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    enabled: bool = option(
        False,
        "Sign certificates for names under bit, under the root that isoproxy tls init made, for "
        "listeners with tls = true.",
        boolean,
    )


@dataclass(frozen=True, slots=True)
class DnsConfig:
    address: Endpoint | None = option(
        _unset_address,
        "Where to answer DNS queries for .bit; without it there is no DNS server.",
        optional(listening),
        example='"127.0.0.1:5353"',
    )
    key_file: str | None = option(
        None,
        "DNSSEC signing key made by isoproxy dns keygen; without it answers are unsigned.",
        optional(one_line),
        example='"/var/lib/isoproxy/dns.key"',
    )
    queries_per_second: int = option(
        100, "Queries answered to one client address, per second.", integer(1, 1_000_000)
    )


@dataclass(frozen=True, slots=True)
class OnionServiceConfig:
    name: str = option("service", "Name of the service in logs and status.", _name)
    ports: tuple[int, ...] = option((80,), "Ports of the onion service.", several(PORT))
    target: Endpoint | None = option(
        _unset_endpoint,
        "The local service behind it.",
        optional(endpoint),
        example='"127.0.0.1:80"',
    )
    key_file: str | None = option(
        None,
        "Where the service's key is kept, made if missing; without it each start has a new "
        "address.",
        optional(one_line),
        example='"/var/lib/isoproxy/web.key"',
    )
    v2: bool = option(False, "Speak BIP324 to the outside, v1 to the target.", boolean)
    network: str | None = option(
        None,
        "Network of the node behind a service with v2, which no stream names; by default the "
        "one whose port this is.",
        optional(CHAIN),
        example='"mainnet"',
    )
    advertise_v2: bool = option(
        False,
        "Set service bit 11 in that node's VERSION, so that peers come in v2 the next time.",
        boolean,
    )
    client_auth: tuple[str, ...] = option(
        (),
        "Public keys (x25519, base32) of the only clients let in.",
        several(matching(r"[A-Z2-7]{52}", "52 letters and digits of base32")),
    )


@dataclass(frozen=True, slots=True)
class ObserveConfig:
    admin: Endpoint | None = option(
        _unset_address,
        "Unix socket for isoproxy status and the like; by default in the run-time directory.",
        optional(listening),
        example='"unix:/run/isoproxy/admin"',
    )
    dashboard: Endpoint | None = option(
        _unset_address,
        "Unix socket or loopback address of the dashboard and the metrics; by default there "
        "is none.",
        optional(listening),
        example='"unix:/run/isoproxy/dashboard"',
    )
    dashboard_mode: Mode = option(
        Mode(0o660), "Permissions of the dashboard's unix socket, octal.", permissions
    )
    log_level: str = option("notice", "Least important level that is logged.", choice(*LOG_LEVELS))
    log_format: str = option("text", "Form of a log line.", choice("text", "json"))
    safe_logging: bool = option(
        True,
        "Replace names, targets and credentials by [scrubbed], in the log, the status and the "
        "dashboard.",
        boolean,
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    tor: TorConfig = section(TorConfig, "How Tor is reached.")
    listener: tuple[ListenerConfig, ...] = sections(
        ListenerConfig, "A port for applications.", default=DEFAULT_LISTENERS
    )
    transparent: tuple[TransparentConfig, ...] = sections(
        TransparentConfig, "A port for programs that know no proxy, and their DNS."
    )
    limits: LimitsConfig = section(LimitsConfig, "What clients may use up.")
    names: NamesConfig = section(NamesConfig, "Namecoin names.")
    bitcoin: BitcoinConfig = section(BitcoinConfig, "Bitcoin peers over BIP324.")
    tls: TlsConfig = section(TlsConfig, "HTTPS for .bit.")
    dns: DnsConfig = section(DnsConfig, "DNS server for .bit.")
    onion_service: tuple[OnionServiceConfig, ...] = sections(
        OnionServiceConfig, "A local service offered as an onion service."
    )
    observe: ObserveConfig = section(ObserveConfig, "Log, dashboard and administration.")
