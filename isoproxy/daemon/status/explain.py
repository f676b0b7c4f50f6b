"""`isoproxy explain`: what would separate a stream, and with whom it would share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from isoproxy.admin.server import Answer
from isoproxy.config import Config, ListenerConfig
from isoproxy.daemon.settings.front import session_rule, top_levels
from isoproxy.errors import (
    ErrorKind,
    IsoproxyError,
    OperationError,
    PolicyRefusal,
    explanation,
)
from isoproxy.isolation import (
    APP,
    ClientProtocol,
    IsolationTuple,
    Isolator,
    accepts_username,
    canonical_fields,
    client_of_address,
    client_of_uid,
    upstream_credentials,
)
from isoproxy.namecoin.value.name import Route
from isoproxy.net.target import Target

_USER_ID: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


def explain(
    config: Config,
    isolator: Isolator,
    *,
    listener: str | None = None,
    username: bytes | None = None,
    password: bytes | None = None,
    target: str | None = None,
    client: str | None = None,
    live_keys: Iterable[str] = (),
) -> Answer:
    """The key of a SOCKS5 stream as it would be derived now, and what it is made of.

    `target` is "host:port"; `client` an IP address, at a unix listener the number of a user,
    by default this machine, or the user we run as.  The answer names the fields that
    count, not their values.
    Raises OperationError for a listener, a target or a user name that cannot be.
    """
    chosen = _listener(config, listener)
    if username is not None and not accepts_username(username):
        raise OperationError(
            'user names that begin with "<torS0X>" are reserved; use exactly "<torS0X>0"'
        )
    wanted = _target(target)
    rule = session_rule(config, chosen)
    stream = IsolationTuple(
        client=_client(client, unix=chosen.address.is_unix),
        protocol=ClientProtocol.SOCKS5,
        username=username,
        password=password,
        dest_host=wanted.host.encode() if wanted is not None else b"",
        dest_port=wanted.port if wanted is not None else 0,
    )
    key = isolator.key_for(rule.listener, stream)
    fields = [name for name, _ in canonical_fields(rule.listener, stream)]
    verbatim = key.verbatim is not None and upstream_credentials(key, APP) == key.verbatim
    return {
        "listener": chosen.name,
        "key": key.label,
        "separated_by": fields,
        "credentials": "the application's own" if verbatim else "derived from the key",
        "path": _path(config, wanted),
        "cache": f"names of key {key.label} alone",
        "backend": config.names.backend,
        "shares_with": _shares(chosen, fields),
        "live_flows": sum(label == key.label for label in live_keys),
    }


def arguments_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `explain` in a request: texts, where given.  Raises OperationError."""
    arguments: dict[str, Any] = {}
    for name in ("listener", "target", "client", "username", "password"):
        value = request.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise OperationError(f"{name} must be text")
        raw = name in ("username", "password")
        arguments[name] = value.encode("utf-8", "surrogateescape") if raw else value
    return arguments


def _listener(config: Config, name: str | None) -> ListenerConfig:
    for listener in config.listener:
        if name in (None, listener.name, str(listener.address)):
            return listener
    known = ", ".join(listener.name for listener in config.listener)
    raise OperationError(f"there is no such listener; known: {known or 'none'}")


def _target(text: str | None) -> Target | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    try:
        if not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
            raise PolicyRefusal
        return Target.parse(host.removeprefix("[").removesuffix("]"), int(port))
    except IsoproxyError:
        raise OperationError("a target is written host:port") from None


def _client(given: str | None, *, unix: bool) -> bytes:
    if unix:
        if given is None:
            return client_of_uid(os.geteuid())
        if not _USER_ID.fullmatch(given):
            raise OperationError("a client of a unix listener is given as the number of a user")
        return client_of_uid(int(given))
    try:
        return client_of_address("127.0.0.1" if given is None else given)
    except ValueError:
        raise OperationError("a client is given as an IP address") from None


def _path(config: Config, target: Target | None) -> str:
    """Which way the stream would take."""
    if target is None or target.is_ip:
        return "Tor"
    route = top_levels(config.names).route(target.host)
    if route is Route.NAMECOIN:
        return "resolved as a Namecoin name under this key, then Tor"
    if route is Route.REFUSE:
        return f"refused: {explanation(ErrorKind.NAME_NEVER_SENT_TO_TOR)}"
    if target.is_onion:
        return "Tor, to an onion service"
    return "Tor, to an exit that resolves the name"


def _shares(listener: ListenerConfig, fields: list[str]) -> str:
    where = (
        f"listeners of session group {listener.session_group}"
        if listener.session_group is not None
        else "this listener"
    )
    same = ", ".join(name for name in fields if name != "session group")
    return f"streams of {where} with the same {same}" if same else f"all streams of {where}"
