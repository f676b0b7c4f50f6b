"""Files of the configuration that hold passwords or bridges, and whether all may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from isoproxy.config.sources import Leaf, Node, Table, Tables

_SECRETS = frozenset({"password", "control_password", "bridges"})


def has_password(node: Node) -> bool:
    """Whether a password or a bridge is set in a tree of settings; also as `user:password@…`."""
    match node:
        case Table():
            return any(
                (key in _SECRETS and isinstance(item, Leaf)) or has_password(item)
                for key, item in node.items.items()
            )
        case Tables():
            return any(map(has_password, node.items))
        case Leaf(value=str(value)):
            return ":" in value.rpartition("@")[0] and not value.startswith("unix:")
    return False


def is_exposed(file: Path) -> bool:
    """Whether every user of the machine may read `file`; raises OSError."""
    return bool(os.stat(file).st_mode & stat.S_IROTH)


def exposed_passwords(file: Path, table: Table) -> list[str]:
    """What to warn of: that `file`, with the settings in `table`, shows its passwords to all."""
    try:
        if not has_password(table) or not is_exposed(file):
            return []
    except OSError:
        return []
    return [
        f"{file}: every user can read it, and it holds a password or a bridge; chmod o-rwx {file}"
    ]
