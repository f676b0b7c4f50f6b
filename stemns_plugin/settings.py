"""The settings of `stemns` and `stemns control-filter`: one TOML file, or StemNS's directory.

    [stemns]
    control = "127.0.0.1:9051"            # or "unix:/run/tor/control"
    control_password = "..."              # else the cookie
    allow_private_addresses = false
    timeout_s = 60
    state = "/var/lib/stemns"             # what plugins are told to keep their state in
    stemns_config = "/etc/stemns/config"  # StemNS's own files: services, control port

    [services]                            # by suffix; the longest suffix of a name wins
    bit = ["prop279-namecoin"]            # this is the default, for bit.onion too
    "pet.onion" = ["/usr/bin/petnames", "--file", "/etc/petnames"]

    [control_filter]
    listen = ["10.152.152.10:9253"]
    suffixes = ["bit"]
    username = "namecoin:.*"              # a regular expression; absent: any user

Invariants
    An unknown key, or a value of the wrong type, is an error that names file and key.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint
from stemns_plugin.control_filter import ControlFilterSettings
from stemns_plugin.controller import ControllerSettings
from stemns_plugin.stemns_directory import ControlPortFile, StemnsDirectory, read_directory
from stemns_plugin.suffix_router import ALWAYS_OURS, RESOLVE_S

DEFAULT_FILE: Final = Path("/etc/isoproxy/stemns.toml")
DEFAULT_CONTROL: Final = "127.0.0.1:9051"
DEFAULT_COMMAND: Final = (sys.executable, "-P", "-m", "prop279")

_KEYS: Final = {
    "stemns": {
        "control", "control_password", "allow_private_addresses", "timeout_s", "state",
        "stemns_config",
    },
    "control_filter": {"listen", "suffixes", "username"},
}  # fmt: skip
_SUFFIX: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the file says; commands by suffix."""

    controller: ControllerSettings
    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    timeout_s: float = RESOLVE_S
    state: Path | None = None
    control_filter: ControlFilterSettings | None = None


def read_settings(file: Path | None) -> Settings:
    """The settings in `file` (by default the one in /etc, if it is there); ConfigError."""
    if file is None and not DEFAULT_FILE.exists():
        return _settings({}, "defaults")
    path = file or DEFAULT_FILE
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; check the path and its owner"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return _settings(tree, str(path))


def _settings(tree: Mapping[str, Any], where: str) -> Settings:
    for name, table in tree.items():
        if name not in (*_KEYS, "services") or not isinstance(table, dict):
            raise ConfigError(
                f"{where}: {name}: there are [stemns], [services] and [control_filter] only"
            )
        for key in table:
            if name in _KEYS and key not in _KEYS[name]:
                raise ConfigError(f"{where}: {name}.{key}: there is no such setting")
    own = _Table(tree.get("stemns", {}), f"{where}: stemns")
    directory = StemnsDirectory()
    if (config := own.get("stemns_config", str, None)) is not None:
        directory = read_directory(Path(config))
    controller = ControllerSettings(
        control=_control(own, directory),
        password=own.get("control_password", str, None),
        allow_internal=own.get("allow_private_addresses", bool, False),
    )
    state = own.get("state", str, None)
    return Settings(
        controller=controller,
        services=_services(tree.get("services", {}), directory, where),
        timeout_s=float(own.get("timeout_s", (int, float), RESOLVE_S)),
        state=None if state is None else Path(state),
        control_filter=_control_filter(
            _Table(tree["control_filter"], f"{where}: control_filter"), controller
        )
        if "control_filter" in tree
        else None,
    )


class _Table:
    """A table of the file, with the beginning of messages about it."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def wrong(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self._where}.{key}: {what}")

    def get(self, key: str, kind: Any, default: Any) -> Any:
        value = self._values.get(key, default)
        if value is not default and (
            not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        ):
            raise self.wrong(key, "the value is of another type")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.get(key, list, [])
        if not all(isinstance(one, str) for one in value):
            raise self.wrong(key, "expected a list of texts")
        return tuple(value)

    def endpoint(self, key: str, text: str) -> Endpoint:
        try:
            place = Endpoint.parse(text)
        except ConfigError as error:
            raise self.wrong(key, str(error)) from None
        if place.is_none:
            raise self.wrong(key, "stemns cannot do without it")
        return place


def _control(own: _Table, directory: StemnsDirectory) -> Endpoint | ControlPortFile:
    control, default = own.get("control", str, None), DEFAULT_CONTROL
    if control is None and isinstance(directory.control_port, ControlPortFile):
        return directory.control_port
    if directory.control_port is not None:
        default = f"127.0.0.1:{directory.control_port}"
    return own.endpoint("control", control or default)


def _services(
    table: Mapping[str, Any], directory: StemnsDirectory, where: str
) -> dict[str, tuple[str, ...]]:
    commands: dict[str, tuple[str, ...]] = {}
    for suffix, command in {**directory.services, **table}.items():
        normal = suffix.strip(".").lower()
        if _SUFFIX.fullmatch(normal) is None:
            raise ConfigError(f"{where}: services.{suffix}: not the end of a host name")
        words = command if isinstance(command, list) else []
        if not words or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{where}: services.{suffix}: expected a program and its arguments")
        commands[normal] = tuple(words)
    for suffix in ALWAYS_OURS:
        commands.setdefault(suffix, commands.get("bit", DEFAULT_COMMAND))
    return commands


def _control_filter(table: _Table, controller: ControllerSettings) -> ControlFilterSettings:
    listen = tuple(table.endpoint("listen", text) for text in table.texts("listen"))
    if not listen or any(place.host is None for place in listen):
        raise table.wrong("listen", "expected addresses such as '10.152.152.10:9253'")
    username = table.get("username", str, None)
    try:
        pattern = None if username is None else re.compile(username.encode())
    except re.error as error:
        raise table.wrong("username", f"not a regular expression: {error}") from None
    suffixes = tuple(suffix.strip(".").lower() for suffix in table.texts("suffixes"))
    if not all(map(_SUFFIX.fullmatch, suffixes)):
        raise table.wrong("suffixes", "one is not the end of a host name")
    return ControlFilterSettings(controller, listen, suffixes, pattern)
