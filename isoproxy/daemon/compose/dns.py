"""The DNS server as the configuration has it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isoproxy.config import Config
from isoproxy.dns.answer import Apex
from isoproxy.dns.responder import Responder
from isoproxy.dns.server import DnsServer, DnsSettings
from isoproxy.dns.sign import Signer, ZoneKey
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.answer import Policy
from isoproxy.namecoin.resolve.resolver import Resolver

_NO_ADDRESS: Final = "127.0.0.1"


def dns_policy(config: Config) -> Policy:
    """What the server shows of a name."""
    names = config.names
    return Policy(
        only_onion=names.only_onion, allow_private_addresses=names.allow_private_addresses
    )


def dns_server(
    config: Config, resolver_of: Callable[[bytes], Resolver], isolator: Isolator
) -> DnsServer | None:
    """The server, to be opened; None if the configuration wants none.

    Raises ConfigError where the signing key cannot be read.
    """
    wanted = config.dns
    if wanted.address is None:
        return None
    key = None if wanted.key_file is None else ZoneKey.load(Path(wanted.key_file))
    responder = Responder(
        resolver_of,
        isolator,
        Apex(wanted.address.host or _NO_ADDRESS, None if key is None else key.dnskey),
        signer=None if key is None else Signer(key, time.time),
        policy=dns_policy(config),
    )
    return DnsServer(responder, DnsSettings(wanted.address, wanted.queries_per_second))
