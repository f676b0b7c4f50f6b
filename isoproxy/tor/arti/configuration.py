"""What isoproxy tells the Arti that it starts.

Theory of operation
    The whole configuration is one file of dotted keys, so that lines of the user's own
    stand beside ours.  Arti chooses its SOCKS port itself, on the loopback address, and
    tells it over RPC, whose socket is in a directory that only we may enter.

Invariants
    Lines of the user's own cannot change where Arti listens, keeps its files, logs or is
    controlled.

Specification: arti-example-config.toml of Arti 2.7; TOML 1.0.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError

_OURS: Final = frozenset({"proxy", "rpc", "logging", "metrics", "onion_services"})
_OUR_STORAGE: Final = frozenset({"cache_dir", "state_dir", "port_info_file", "keystore"})


def connect_point(socket: str) -> str:
    """Arti's connect file for the RPC socket at the path `socket`."""
    return f'[connect]\nsocket = {_quoted(f"unix:{socket}")}\nauth = "none"\n'


def arti_toml(directory: Path, extra: Sequence[str] = ()) -> str:
    """The whole configuration of a managed Arti that lives in `directory`."""
    files = {
        "storage.cache_dir": directory / "cache",
        "storage.state_dir": directory / "state",
        "storage.port_info_file": directory / "ports.json",
        "rpc.listen.isoproxy.file": directory / "connect.toml",
    }
    lines = [
        'proxy.socks_listen = "127.0.0.1:auto"',
        "proxy.dns_listen = 0",
        "rpc.enable = true",
        'logging.console = "info"',
        *(f"{key} = {_quoted(str(path))}" for key, path in files.items()),
        *(checked(line) for line in extra),
    ]
    return "\n".join(lines) + "\n"


def checked(line: str) -> str:
    """A line of the user's, if it leaves alone what isoproxy sets itself; else ConfigError."""
    text = line.strip()
    if not text or text.startswith("#"):
        return ""
    try:
        keys = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"an entry is one line of arti.toml, as in a.b = 1: {error}") from None
    if "\n" in text or text.startswith("["):
        raise ConfigError("an entry is one line of arti.toml, with a dotted key: a.b = 1")
    storage = keys.get("storage")
    if keys.keys() & _OURS or (isinstance(storage, dict) and storage.keys() & _OUR_STORAGE):
        raise ConfigError(
            f"{next(iter(keys))} is set by isoproxy; remove the line, or run your own Arti and "
            "set tor.arti_rpc"
        )
    return text


def _quoted(text: str) -> str:
    """A TOML basic string; Arti would take `$` and a leading `~` for variables."""
    if not text.isprintable() or any(character in text for character in "$~"):
        raise ConfigError("the state directory's path may hold no dollar signs and no tildes")
    return json.dumps(text, ensure_ascii=False)
