"""Rules between settings: what no single value can show to be wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from ipaddress import ip_address

from isoproxy.config.bitcoin import BitcoinConfig, ProxyConfig
from isoproxy.config.build import Places, problem
from isoproxy.config.schema import PRESETS, Config, TorConfig
from isoproxy.errors import ConfigError
from isoproxy.isolation import FLAG_NAMES, Isolate
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.arti import configuration as arti
from isoproxy.tor.managed.bridges import read_bridges, read_transports
from isoproxy.tor.managed.egress import read_proxy
from isoproxy.tor.managed.torrc import checked

_WHONIX_PORTS = range(9040, 9230)
_V1_VERSION = b"version".ljust(12, b"\0")
_MERGED = (
    '"verbatim" shows Tor the application\'s user and password alone, so it would merge '
    "listeners, client addresses and destinations that are kept apart here; use "
    '"derived", or exactly one listener with isolate = ["SOCKSAuth"] and no proxy'
)


def check(config: Config, places: Places) -> tuple[list[str], list[str]]:
    """Errors and warnings, each beginning with where the setting was written."""
    rules = (
        _credentials,
        _tor,
        _arti,
        _addresses,
        _transparent,
        _names,
        _bitcoin,
        _observe,
        _limits,
        _services,
        _tls,
    )
    errors = [_at(places, key, text) for rule in rules for key, text in rule(config)]
    warnings = [_at(places, key, text) for key, text in _warnings(config)]
    return errors, warnings


Finding = tuple[str, str]


def _at(places: Places, key: str, text: str) -> str:
    where = key
    while where and where not in places:
        where = where.rpartition(".")[0]
    return problem(places[where], key, text) if where else f"{key}: {text}"


def _credentials(config: Config) -> Iterator[Finding]:
    if config.tor.credentials == "verbatim" and config.tor.mode == "arti":
        yield (
            "tor.credentials",
            '"verbatim" needs a control port to renew circuits, and Arti has none; use "derived"',
        )
    if config.tor.credentials == "verbatim" and would_merge(config):
        yield "tor.credentials", _MERGED


def _tor(config: Config) -> Iterator[Finding]:
    for key, place in (("socks", config.tor.socks), ("control", config.tor.control)):
        if config.tor.mode == "system" and not place.is_none and not place.is_local:
            yield (
                f"tor.{key}",
                "must be a loopback or private address or a unix socket: what is said there, "
                "every destination among it, is not encrypted",
            )
    yield from _egress(config.tor)
    for line in config.tor.extra_torrc if config.tor.mode == "managed" else ():
        try:
            checked(line)
        except ConfigError as error:
            yield "tor.extra_torrc", str(error)


def _egress(tor: TorConfig) -> Iterator[Finding]:
    """Where a tor of our own cannot reach its network as it is told to."""
    read: dict[str, Callable[[], object]] = {
        "bridges": lambda: read_bridges(tor.bridges),
        "transports": lambda: read_transports(tor.transports),
        "firewall_ports": lambda: None,
        "proxy": lambda: None if tor.proxy is None else read_proxy(tor.proxy),
    }
    for name, attempt in read.items():
        if tor.mode != "managed" and getattr(tor, name):
            yield (
                f"tor.{name}",
                'it is for a tor that isoproxy runs itself: tor.mode = "managed"; another tor has '
                "it in its own torrc",
            )
        try:
            attempt()
        except ConfigError as error:
            yield f"tor.{name}", str(error)


def _arti(config: Config) -> Iterator[Finding]:
    if config.tor.mode != "arti":
        return
    if config.tor.arti_rpc is not None and not config.tor.arti_rpc.is_unix:
        yield "tor.arti_rpc", "must be a unix socket, whose permissions say who may use Arti"
    for line in config.tor.extra_arti:
        try:
            arti.checked(line)
        except ConfigError as error:
            yield "tor.extra_arti", str(error)
    if config.onion_service:
        yield "onion_service", 'needs a control port, and Arti has none; use tor.mode = "managed"'


def would_merge(config: Config) -> bool:
    """Whether Tor, shown nothing but the applications' own credentials, would merge streams
    that `config` keeps apart; clients of a proxy that speak SOCKS5 have credentials too."""
    if len(config.listener) != 1 or config.bitcoin.proxy or config.transparent:
        return True
    return config.listener[0].isolate != Isolate.SOCKS_AUTH


def check_reload(config: Config, *, verbatim: bool) -> None:
    """Raise ConfigError where `config` does not go with what was settled at the start."""
    if verbatim and would_merge(config):
        raise ConfigError(f"tor.credentials: it stays what it was at the start, and {_MERGED}")


def _addresses(config: Config) -> Iterator[Finding]:
    seen: dict[Endpoint, str] = {}
    names: dict[str, str] = {}
    tors_own = (str(config.tor.socks), str(config.tor.control))
    for key, address in _listening(config):
        fixed = address.is_unix or address.port != 0
        if fixed and address in seen:
            yield key, f"the same address as {seen[address]}; give each its own"
        seen.setdefault(address, key)
        if config.tor.mode == "system" and str(address) in tors_own:
            yield key, "this is Tor's own address; isoproxy needs one beside it, such as port 9250"
    for index, listener in enumerate(config.listener):
        key = f"listener.{index}"
        if listener.name in names:
            yield f"{key}.name", f"the same name as {names[listener.name]}; give each its own"
        names.setdefault(listener.name, key)
        if not listener.address.is_loopback and Isolate.CLIENT_ADDR not in listener.isolate:
            yield (
                f"{key}.isolate",
                "a listener that other machines reach must keep them apart; add ClientAddr",
            )
    for index, listener in enumerate(config.listener):
        if listener.preset is not None and PRESETS[listener.preset] & ~listener.isolate:
            yield (
                f"listener.{index}.isolate",
                f'looser than the preset "{listener.preset}"; leave it out, or add to '
                f"{_names_of(PRESETS[listener.preset])}",
            )
    ports = (config.listener, config.transparent, config.bitcoin.proxy)
    if not any((*ports, config.dns.address, config.onion_service)):
        yield "listener", "nothing to do: no listener, proxy, DNS server or onion service"


def _transparent(config: Config) -> Iterator[Finding]:
    names = {listener.name for listener in config.listener}
    for index, its in enumerate(config.transparent):
        key = f"transparent.{index}"
        if its.name in names:
            yield f"{key}.name", "the name of another listener; give each its own"
        names.add(its.name)
        if its.address.is_unix:
            yield f"{key}.address", "connections are redirected to an IP address and a port"
        if its.dns is not None and (its.dns.is_unix or its.dns.family != its.address.family):
            yield f"{key}.dns", "must be an IP address of the same family as address"
        if not its.address.is_loopback and Isolate.CLIENT_ADDR not in its.isolate:
            yield (
                f"{key}.isolate",
                "a listener that other machines reach must keep them apart; add ClientAddr",
            )


def _names_of(flags: Isolate) -> str:
    return ", ".join(name for name, flag in FLAG_NAMES.items() if flag in flags)


def _listening(config: Config) -> Iterator[tuple[str, Endpoint]]:
    for index, listener in enumerate(config.listener):
        yield f"listener.{index}.address", listener.address
    for index, its in enumerate(config.transparent):
        yield f"transparent.{index}.address", its.address
    for index, proxy in enumerate(config.bitcoin.proxy):
        yield f"bitcoin.proxy.{index}.address", proxy.address
    if config.observe.dashboard is not None:
        yield "observe.dashboard", config.observe.dashboard
    if config.observe.admin is not None:
        yield "observe.admin", config.observe.admin


def _names(config: Config) -> Iterator[Finding]:
    electrum, rpc = config.names.electrum, config.names.rpc
    for suffix, route in config.names.top_levels.items():
        is_bit = suffix in ("bit", "bit.onion") or suffix.endswith(".bit")
        if is_bit and route == "tor":
            yield "names.top_levels", 'bit can never be "tor": an exit would only learn the name'
        if not is_bit and route == "namecoin":
            yield "names.top_levels", 'only names under bit are "namecoin"; write "tor" or "refuse"'
    if electrum.servers and electrum.quorum > len(electrum.servers):
        yield (
            "names.electrum.quorum",
            f"more than the {len(electrum.servers)} configured servers; name more or lower it",
        )
    if (electrum.anchor_height is None) != (electrum.anchor_hash is None):
        yield "names.electrum.anchor_height", "anchor_height and anchor_hash go together"
    if (electrum.checkpoint_height is None) != (electrum.checkpoint_root is None):
        yield (
            "names.electrum.checkpoint_height",
            "checkpoint_height and checkpoint_root go together",
        )
    if rpc.clients and config.names.backend in ("electrum", "none"):
        yield (
            "names.rpc.clients",
            'needs names.backend = "electrum-nmc" or "namecoin-core": the light client in '
            "isoproxy keeps clients apart by itself",
        )
    if rpc.cookie_file and (rpc.username or rpc.password):
        yield "names.rpc.cookie_file", "give a cookie file, or user and password, not both"
    if rpc.password and not rpc.username:
        yield "names.rpc.password", "a password needs a username"


def _bitcoin(config: Config) -> Iterator[Finding]:
    bitcoin = config.bitcoin
    sizes = bitcoin.decoy_sizes
    if len(sizes) != 2 or sizes[0] > sizes[1]:
        yield "bitcoin.decoy_sizes", "two numbers: the least and the greatest size, least first"
    if bytes.fromhex(bitcoin.ellswift_prefix)[4:16] == _V1_VERSION:
        yield (
            "bitcoin.ellswift_prefix",
            "peers would take a key that begins like this for a v1 message; choose another",
        )
    known = _signets(bitcoin)
    names: dict[str, str] = {}
    for index, proxy in enumerate(bitcoin.proxy):
        key = f"bitcoin.proxy.{index}"
        if bitcoin.v2 == "off":
            yield key, 'a proxy speaks BIP324; set bitcoin.v2 = "on", or remove it'
        if proxy.name in names:
            yield f"{key}.name", f"the same name as {names[proxy.name]}; give each its own"
        names.setdefault(proxy.name, key)
        yield from _proxy_peers(key, proxy)
        yield from _known_signet(f"{key}.network", proxy.network, known)
        if not proxy.address.is_loopback and Isolate.CLIENT_ADDR not in proxy.isolate:
            yield (
                f"{key}.isolate",
                "a proxy that other machines reach must keep them apart; add ClientAddr",
            )


def _proxy_peers(key: str, proxy: ProxyConfig) -> Iterator[Finding]:
    if proxy.peer is not None and proxy.peers:
        yield f"{key}.peers", "of no effect beside peer, which all clients reach; keep one of them"
    for asked in proxy.peers:
        try:
            ip_address(asked.rpartition(":")[0].strip("[]"))
        except ValueError:
            yield f"{key}.peers", "clients ask for addresses alone; write IP:port before the ="


def _known_signet(key: str, network: str | None, known: set[str]) -> Iterator[Finding]:
    if network is not None and network.startswith("signet-") and network not in known:
        yield key, "no such signet; give its challenge in bitcoin.signet_challenges"


def _signets(bitcoin: BitcoinConfig) -> set[str]:
    return {"signet-" + magic for magic in map(_signet_magic, bitcoin.signet_challenges)}


def _signet_magic(challenge: str) -> str:
    """BIP325: what its messages begin with, in hexadecimal."""
    script = bytes.fromhex(challenge)
    size = bytes([len(script)]) if len(script) < 0xFD else b"\xfd" + struct.pack("<H", len(script))
    return sha256(sha256(size + script).digest()).hexdigest()[:8]


def _observe(config: Config) -> Iterator[Finding]:
    admin, dashboard = config.observe.admin, config.observe.dashboard
    if admin is not None and not admin.is_unix:
        yield "observe.admin", "must be a unix socket, such as unix:/run/isoproxy/admin"
    if dashboard is not None and not dashboard.is_loopback:
        yield (
            "observe.dashboard",
            "must be a unix socket or a loopback address, such as 127.0.0.1:9252: what it shows "
            "tells of people's activity; look from another machine through ssh -L",
        )


def _limits(config: Config) -> Iterator[Finding]:
    limits = config.limits
    if limits.max_connections_per_client > limits.max_connections:
        yield (
            "limits.max_connections_per_client",
            f"more than limits.max_connections ({limits.max_connections})",
        )


def _services(config: Config) -> Iterator[Finding]:
    signets = _signets(config.bitcoin)
    for index, service in enumerate(config.onion_service):
        yield from _known_signet(f"onion_service.{index}.network", service.network, signets)
        if service.target is None:
            yield f"onion_service.{index}.target", "missing: say which local service is offered"
        elif not service.target.is_local:
            yield (
                f"onion_service.{index}.target",
                "must be a loopback or private address or a unix socket: the connection to it does "
                "not go through Tor",
            )


def _tls(config: Config) -> Iterator[Finding]:
    for index, listener in enumerate(config.listener):
        if listener.tls and not config.tls.enabled:
            yield f"listener.{index}.tls", "needs tls.enabled = true, and a root: isoproxy tls init"
        if listener.tls and config.names.backend == "none":
            yield f"listener.{index}.tls", 'needs names: names.backend is "none"'


def _warnings(config: Config) -> Iterator[Finding]:
    for key, address in _listening(config):
        if address.is_unix:
            continue
        if address.port in _WHONIX_PORTS:
            yield key, "ports 9040 to 9229 are Whonix's; another port, such as 9250, avoids clashes"
        if not address.is_loopback:
            yield key, "other machines can reach this; a firewall must say which may"
    for index, listener in enumerate(config.listener):
        if not listener.isolate:
            yield f"listener.{index}.isolate", "empty: all its clients share circuits"
    if config.dns.address is not None and not config.dns.address.is_loopback:
        yield "dns.address", "other machines can reach this; a firewall must say which may"
    if config.bitcoin.v1_fallback == "always":
        yield "bitcoin.v1_fallback", "an exit that cuts a stream gets to read the next one"
    for index, proxy in enumerate(config.bitcoin.proxy):
        if proxy.allow_private_addresses:
            key = f"bitcoin.proxy.{index}.allow_private_addresses"
            yield key, "clients can have private networks dialled; for test networks only"
    if not config.observe.safe_logging:
        yield "observe.safe_logging", "names and targets will be in the log; for debugging only"
    if config.names.backend == "electrum" and config.names.electrum.quorum == 1:
        yield (
            "names.electrum.quorum",
            "1: one server can keep a newer value back; and that a name does not exist takes two",
        )
    if config.names.electrum.allow_plain:
        yield "names.electrum.allow_plain", "exits can read, and change, what is looked up"
    if config.names.rpc.allow_unisolated:
        yield "names.rpc.allow_unisolated", "look-ups of separate identities can be linked"
