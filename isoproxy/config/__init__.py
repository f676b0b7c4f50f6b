"""Configuration: TOML files, drop-ins and `--set`, checked whole, as one frozen `Config`.

    schema.py    every setting: name, default, sentence, reader
    sources.py   files and options, merged; each value keeps where it was written
    build.py     the tree becomes `Config`; unknown keys get the nearest known one
    check.py     rules between settings
    passwords.py files that show their passwords to every user
    sample.py    the commented sample, from the schema

All problems of all files are reported at once, each as `file:line: key: what to do`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoproxy.config.bitcoin import BitcoinConfig, ProxyConfig
from isoproxy.config.build import build
from isoproxy.config.check import check, check_reload
from isoproxy.config.diff import changed_keys
from isoproxy.config.names import ElectrumConfig, NamesConfig, RpcConfig
from isoproxy.config.option import LoginAt
from isoproxy.config.passwords import exposed_passwords
from isoproxy.config.paths import (
    configuration_directories,
    private_directory,
    runtime_directory,
    state_directory,
)
from isoproxy.config.sample import sample_toml
from isoproxy.config.schema import (
    Config,
    DnsConfig,
    LimitsConfig,
    ListenerConfig,
    ObserveConfig,
    OnionServiceConfig,
    TorConfig,
    TransparentConfig,
)
from isoproxy.config.sources import Table, merge, read_file, read_option
from isoproxy.errors import ConfigError
from isoproxy.net.endpoint import Endpoint

__all__ = [
    "BitcoinConfig",
    "Config",
    "DnsConfig",
    "ElectrumConfig",
    "LimitsConfig",
    "ListenerConfig",
    "Loaded",
    "LoginAt",
    "NamesConfig",
    "ObserveConfig",
    "OnionServiceConfig",
    "ProxyConfig",
    "RpcConfig",
    "TorConfig",
    "TransparentConfig",
    "admin_address",
    "changed_keys",
    "check_reload",
    "load",
    "private_directory",
    "runtime_directory",
    "sample_toml",
    "state_directory",
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that passed, with what deserves a word and the files it is from."""

    config: Config
    warnings: tuple[str, ...]
    files: tuple[Path, ...]


def load(path: Path | None = None, settings: Sequence[str] = ()) -> Loaded:
    """Read `path` (or /etc/isoproxy), its drop-ins, then the `key=value` `settings`.

    `$CONFIGURATION_DIRECTORY` takes the place of /etc/isoproxy.

    Raises ConfigError, whose text has one line for each problem of all the files.
    """
    problems: list[str] = []
    tree = Table("defaults")
    files = _files(path, problems)
    warnings: list[str] = []
    for file in files:
        table = read_file(file, problems)
        warnings += exposed_passwords(file, table)
        merge(tree, table)
    for setting in settings:
        merge(tree, read_option(setting, problems))
    config, places = build(tree, problems)
    if not problems:
        errors, doubtful = check(config, places)
        problems += errors
        warnings += doubtful
    if problems:
        raise ConfigError("\n".join(problems))
    return Loaded(config, tuple(warnings), tuple(files))


def admin_address(config: Config, environment: Mapping[str, str] = os.environ) -> Path:
    """The admin socket's path, for the daemon and for the commands that ask it; ConfigError."""
    if config.observe.admin is not None:
        assert config.observe.admin.path is not None, "the configuration was checked"
        return Path(config.observe.admin.path)
    path = runtime_directory(environment) / "admin"
    try:
        Endpoint.unix(str(path))
    except ConfigError as error:
        raise ConfigError(
            f"the admin socket {path}: {error}; or set observe.admin to unix:/path"
        ) from None
    return path


def _files(path: Path | None, problems: list[str]) -> list[Path]:
    if path is not None:
        return [path, *_drop_ins(path.parent / "conf.d", problems)]
    system, *local = configuration_directories()
    main = system / "isoproxy.toml"
    files = [main] if _is_there(main) else []
    for directory in (system / "conf.d", *local):
        files += _drop_ins(directory, problems)
    return files


def _is_there(path: Path) -> bool:
    """Whether there is such a path; one that cannot be looked at is, and reading it says why."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _drop_ins(directory: Path, problems: list[str]) -> list[Path]:
    """The files of a directory that need not be there; if it is, it must be readable: what is
    in it may be stricter than the defaults."""
    if not _is_there(directory):
        return []
    try:
        names = os.listdir(directory)
    except OSError as error:
        problems.append(
            f"{directory}: cannot be read: {error.strerror}; check its owner and permissions"
        )
        return []
    return [directory / name for name in sorted(names) if name.endswith(".toml")]
