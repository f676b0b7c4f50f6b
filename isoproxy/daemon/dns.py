"""The DNS server and the zone listing, as the configuration has them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from isoproxy.admin import Answer, Handler
from isoproxy.config import Config
from isoproxy.daemon.settings import endpoint_of
from isoproxy.errors import ErrorKind, PolicyRefusal
from isoproxy.isolation import (
    ClientProtocol,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.names.answer import Policy
from isoproxy.names.command import zone_lines
from isoproxy.names.dns_answer import Apex
from isoproxy.names.dns_responder import Responder
from isoproxy.names.dns_server import DnsServer, DnsSettings
from isoproxy.names.dns_sign import Signer, ZoneKey
from isoproxy.names.resolver import Resolver

_NO_ADDRESS: Final = "127.0.0.1"


def dns_server(config: Config, resolver: Resolver, isolator: Isolator) -> DnsServer | None:
    """The server, to be opened; None if the configuration wants none.

    Raises ConfigError where the signing key cannot be read.
    """
    wanted = config.dns
    if wanted.address is None:
        return None
    key = None if wanted.key_file is None else ZoneKey.load(Path(wanted.key_file))
    responder = Responder(
        resolver,
        isolator,
        Apex(wanted.address.host or _NO_ADDRESS, None if key is None else key.dnskey),
        signer=None if key is None else Signer(key, time.time),
        policy=Policy(
            only_onion=config.names.only_onion,
            allow_private_addresses=config.names.allow_private_addresses,
        ),
    )
    endpoint = endpoint_of(wanted.address)
    return DnsServer(responder, DnsSettings(endpoint, wanted.queries_per_second))


def zone_handler(resolver: Resolver, isolator: Isolator) -> Handler:
    """Answers the admin request `zone`: all that the value of a name says, as lines."""
    rule = ListenerRule(own_group("command dns dump"))

    async def answer(request: Mapping[str, Any]) -> Answer:
        name, isolation = request.get("name"), request.get("isolation")
        if not isinstance(name, str) or not isinstance(isolation, str | None):
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        username = None if isolation is None else isolation.encode("utf-8", "surrogateescape")
        stream = IsolationTuple(None, ClientProtocol.COMMAND, username=username)
        zone = await resolver.zone(name, isolator.key_for(rule, stream))
        return {"lines": list(zone_lines(zone))}

    return answer
