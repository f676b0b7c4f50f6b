"""Whose circuits `isoproxy newnym` renews, when it is not everybody's.

An identity is named by its label, as `isoproxy status` and `explain` show it, or by an isolation
ID of our commands and the Python interface, which has a key at each listener and others for
look-ups.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from isoproxy.client import PASSWORD
from isoproxy.config import Config
from isoproxy.daemon.resolve import command_key
from isoproxy.daemon.settings.front import program_listener, session_rule
from isoproxy.dns.responder import dns_key
from isoproxy.errors import OperationError
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    IsolationTuple,
    Isolator,
    client_of_address,
    client_of_uid,
)
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.unix_socket import trusted_users

_DESTINATION: Final = Isolate.DEST_ADDR | Isolate.DEST_PORT
_THIS_MACHINE: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Renewal:
    """The labels of the keys to renew.

    `by_destination` are listeners where the identity has a key for each destination, which
    nothing but its label names.
    """

    labels: tuple[str, ...]
    by_destination: tuple[str, ...] = ()


def renewal_of(request: Mapping[str, Any], config: Config, isolator: Isolator) -> Renewal | None:
    """What a request to the admin socket wants; None: everybody.  Raises OperationError."""
    label, isolation = request.get("label"), request.get("isolation")
    if label is None and isolation is None:
        return None
    if isolator.verbatim:
        raise OperationError(
            'with tor.credentials = "verbatim" Tor knows an identity by the program\'s own user '
            "name and password: change these, or give all new circuits: isoproxy newnym"
        )
    if isinstance(label, str) and isolation is None:
        return Renewal((label,))
    if isinstance(isolation, str) and label is None:
        user = isolation.encode("utf-8", "surrogateescape")
        return _everywhere(user, isolation, config, isolator)
    raise OperationError("expected a label, or an isolation ID, as text")


def _everywhere(user: bytes, isolation: str, config: Config, isolator: Isolator) -> Renewal:
    """All keys of an isolation ID that are known without a destination."""
    keys = [
        command_key(isolator, isolation),
        dns_key(isolator, client_of_address(_THIS_MACHINE), user),
    ]
    programs = program_listener(config.names).rule.listener
    for owner in trusted_users():
        stream = IsolationTuple(client_of_uid(owner), ClientProtocol.TRANSPARENT, user)
        keys.append(isolator.key_for(programs, stream))
    by_destination = []
    for listener in config.listener:
        if Isolate.SOCKS_AUTH not in listener.isolate:
            continue
        if listener.isolate & _DESTINATION:
            by_destination.append(listener.name)
            continue
        client = _client(listener.address)
        stream = IsolationTuple(client, ClientProtocol.SOCKS5, user, PASSWORD.encode())
        keys.append(isolator.key_for(session_rule(config, listener).listener, stream))
    # listeners of one session group have the same keys
    return Renewal(tuple({key.label: None for key in keys}), tuple(by_destination))


def _client(listener: Endpoint) -> bytes:
    """As which client our commands come to a listener."""
    if listener.is_unix:
        return client_of_uid(os.geteuid())
    host = ip_address(str(listener.host))
    if host.version == 4 and (host.is_loopback or host.is_unspecified):
        return client_of_address(_THIS_MACHINE)
    return client_of_address("::1" if host.is_unspecified else str(host))
