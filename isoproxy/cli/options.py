"""Options that several commands have in common."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isoproxy.config import Loaded, admin_address, load

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any


_DAY_S: Final = 86_400.0


def add_configuration(command: argparse.ArgumentParser) -> None:
    """`-c FILE` and `--set key=value`."""
    command.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file (default: /etc/isoproxy/isoproxy.toml if it is there)",
    )
    add_settings(command)


def add_settings(command: argparse.ArgumentParser) -> None:
    """`--set key=value`."""
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="change one setting, e.g. tor.mode=system; may be repeated; no passwords: what stands "
        "here is in the list of processes",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="answer in JSON")


def seconds(text: str) -> float:
    """The type of options that are times: more than nothing, at most a day."""
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value <= _DAY_S:
            return value
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most {_DAY_S:g}")


def loaded(options: argparse.Namespace) -> Loaded:
    """The configuration that the options name; raises ConfigError."""
    return load(options.config, options.settings)


def admin_path(options: argparse.Namespace) -> Path:
    """Where the running isoproxy of that configuration answers."""
    return admin_address(loaded(options).config)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=True))
